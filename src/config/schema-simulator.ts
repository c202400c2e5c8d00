import * as z from 'zod';
import { duration } from './units.ts';

/** Used by `simulate`, and by `serve` when there is neither an upstream nor a key. */
export const simulatorSchema = z.strictObject({
  options_file: z
    .string()
    .optional()
    .describe('YAML file with all options of the simulator: script, faults, switches, timing.'),
  handshake: duration().prefault('0s').describe('Wait before the WebSocket upgrade is answered.'),
  time_to_first_token: duration().prefault('0s').describe('Wait before the first output of a response.'),
  tokens_per_second: z.number().min(0).default(0).describe('Pace of text deltas. 0: as fast as it goes.'),
});
