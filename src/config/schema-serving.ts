import * as z from 'zod';
import { DEFAULT_SESSION_LIMITS } from '../core/limits.ts';
import { DEFAULT_MAX_CUT_STREAMS } from '../session/resume-pacing.ts';
import { byteSize, duration, formatByteSize, formatDuration } from './units.ts';

/**
 * Larger than the upstream's 16 MiB frame: typed messages with images carry base64 text, and the gateway's own,
 * precise refusal (FRAME_TOO_LARGE on the turn) is better than the transport's on the stream.
 */
const DEFAULT_MAX_MESSAGE = '20MiB';
/** Balancers drop idle connections after 60 s or more; two pings fit. */
const DEFAULT_KEEPALIVE_TIME = '30s';
const DEFAULT_KEEPALIVE_TIMEOUT = '10s';
/** One stream is one session: this bounds what a single connection can open. */
const DEFAULT_MAX_STREAMS_PER_CONNECTION = 1_000;
/** Three of them are less than half a minute, and shorter than the patience of proxies, which count messages. */
const DEFAULT_HEARTBEAT_INTERVAL = '10s';
/** A stream that says nothing costs a socket only, yet must not stay for ever. */
const DEFAULT_OPEN_TIMEOUT = '10s';
/** Clients connect again without noticing; balancers keep theirs busy with health checks. */
const DEFAULT_CONNECTION_IDLE = '5m';
/** As long as most turns take. */
const DEFAULT_CONNECTION_AGE_GRACE = '5m';
/** Certificates are replaced by rename or by Kubernetes' symlinks; looking is cheap. */
const DEFAULT_CERTIFICATE_RELOAD = '60s';

export const grpcSchema = z.strictObject({
  max_message: byteSize({ min: '64KiB', max: '256MiB' })
    .prefault(DEFAULT_MAX_MESSAGE)
    .describe('Largest message from a client.'),
  max_streams_per_connection: z
    .int()
    .min(1)
    .max(100_000)
    .default(DEFAULT_MAX_STREAMS_PER_CONNECTION)
    .describe('Streams that one connection may have open at once.'),
  max_connections: z
    .int()
    .min(1)
    .optional()
    .describe(
      'Client connections of a process. Unset: half of its file descriptors, less a reserve. At the limit the one that has been without a stream for longest makes place.',
    ),
  max_connection_idle: duration({ min: '1s' })
    .prefault(DEFAULT_CONNECTION_IDLE)
    .describe('How long a connection may be without a stream.'),
  max_unserved_resets: z
    .int()
    .min(1)
    .optional()
    .describe(
      'Streams of a connection that may be reset before they are served, at once; a fifth of it is forgiven each second, and above it the connection is closed. Unset: as max_streams_per_connection.',
    ),
  open_timeout: duration({ min: '100ms' })
    .prefault(DEFAULT_OPEN_TIMEOUT)
    .describe('Time for the first message of a stream.'),
  heartbeat_interval: duration({ max: '10m' })
    .prefault(DEFAULT_HEARTBEAT_INTERVAL)
    .describe(
      'Longest pause between heartbeats on streams whose clients offer them, and between messages of a silent CreateResponse. 0s: none.',
    ),
  keepalive_time: duration({ min: '1s' })
    .prefault(DEFAULT_KEEPALIVE_TIME)
    .describe('Pause between HTTP/2 pings to the client.'),
  keepalive_timeout: duration({ min: '100ms' })
    .prefault(DEFAULT_KEEPALIVE_TIMEOUT)
    .describe('Time for the answer to a ping before the connection is given up.'),
  // grpc-js waits for up to a tenth longer, and a timer of more than 24.8 days fires at once.
  max_connection_age: duration({ min: '1s', max: '22d' })
    .optional()
    .describe('Age at which a connection gets GoAway, so that clients spread out again. Unset: never.'),
  max_connection_age_grace: duration()
    .prefault(DEFAULT_CONNECTION_AGE_GRACE)
    .describe('Time that streams get to end after max_connection_age.'),
  reflection: z
    .boolean()
    .default(true)
    .describe('Serve grpc.reflection.v1, which grpcurl needs to find the methods.'),
  load_reports: z
    .boolean()
    .default(true)
    .describe(
      'Serve ORCA load reports (xds.service.orca.v3.OpenRcaService), by which balancers find the emptiest replica.',
    ),
  channelz: z.boolean().default(false).describe('Serve grpc.channelz.v1. Costs a little on each call.'),
});

export const tlsSchema = z.strictObject({
  cert_file: z.string().describe('Certificate chain, PEM. Read again when it changes.'),
  key_file: z.string().describe('Private key, PEM. Read again when it changes.'),
  client_ca_file: z
    .string()
    .optional()
    .describe('CA for client certificates, PEM. Set: every client needs a certificate (mTLS).'),
  reload_interval: duration({ min: '1s' })
    .prefault(DEFAULT_CERTIFICATE_RELOAD)
    .describe('How often the files are looked at.'),
});

/** The defaults, with their reasons, stand in core/limits.ts. */
const limits = DEFAULT_SESSION_LIMITS;

export const sessionSchema = z.strictObject({
  max_buffered: byteSize({ min: '16KiB' })
    .prefault(formatByteSize(limits.maxBufferedBytes))
    .describe('Events waiting for a slow client, per session; above it the upstream is paused.'),
  max_resume: byteSize()
    .prefault(formatByteSize(limits.maxResumeBytes))
    .describe('Events kept for a resume, per session.'),
  max_transcript: byteSize()
    .prefault(formatByteSize(limits.maxTranscriptBytes))
    .describe('Conversation kept for recovery, per session.'),
  transcript_budget: byteSize()
    .optional()
    .describe(
      'Conversations kept for recovery, all sessions of a process together. Unset: two fifths of the heap, at most 512MiB.',
    ),
  max_queued_turns_per_lane: z
    .int()
    .min(1)
    .default(limits.maxQueuedTurnsPerLane)
    .describe('Turns that wait on a lane before further ones are refused.'),
  max_lanes: z.int().min(1).default(limits.maxLanes).describe('Lanes of a session.'),
  max_links: z
    .int()
    .min(1)
    .default(limits.maxLinks)
    .describe('Upstream connections that a session may have at once.'),
  max_frame: byteSize({ min: '64KiB' })
    .prefault(formatByteSize(limits.maxFrameBytes))
    .describe('Largest frame sent upstream; a larger turn is refused before it is sent.'),
  resume_grace: duration()
    .prefault(formatDuration(limits.resumeGraceMs))
    .describe('How long a session waits for its client to come back.'),
  max_cut_streams: z
    .int()
    .min(1)
    .default(DEFAULT_MAX_CUT_STREAMS)
    .describe(
      'Streams of a session in a row that may end in the middle of a message of the client, or with one over grpc.max_message, before the session is not resumed any more. A new turn or an acknowledgement begins the count anew.',
    ),
  slow_client_timeout: duration({ min: '1s' })
    .prefault(formatDuration(limits.slowClientTimeoutMs))
    .describe('How long the buffer may stay full before the stream is cut (and can be resumed).'),
  steer_settle: duration({ min: '100ms' })
    .prefault(formatDuration(limits.steerSettleMs))
    .describe('How long a lane waits for the turn that follows an accepted steer.'),
  redial_min: duration({ min: '1ms' })
    .prefault(formatDuration(limits.redialMinMs))
    .describe('First delay before an upstream is dialled again; doubles, with jitter.'),
  redial_max: duration({ min: '1ms' })
    .prefault(formatDuration(limits.redialMaxMs))
    .describe('Longest such delay.'),
  max_dial_attempts: z
    .int()
    .min(1)
    .default(limits.maxDialAttempts)
    .describe('Dials in a row that may fail before waiting turns fail.'),
  default_turn_timeout: duration({ min: '1s' })
    .optional()
    .describe('Time limit of turns that do not bring their own. Unset: none.'),
  silent_turn_timeout: duration({ min: '100ms' })
    .prefault(formatDuration(limits.silentTurnTimeoutMs ?? 0))
    .describe(
      'A turn that was sent ends with UPSTREAM_SILENT when the upstream has said nothing about it for so long. Keep it above the longest silent reasoning you expect.',
    ),
});
