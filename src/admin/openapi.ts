import * as z from 'zod';
import {
  actedSchema,
  levelSchema,
  overviewQuerySchema,
  overviewSchema,
  problemSchema,
  sessionDetailSchema,
  sessionPageSchema,
  sessionQuerySchema,
  turnPageSchema,
  turnQuerySchema,
} from './api.ts';

interface Operation {
  readonly summary: string;
  readonly open?: true;
  readonly query?: z.ZodObject;
  readonly body?: z.ZodType;
  readonly status?: number;
  /** A schema, or the media type of what is no JSON. */
  readonly answer: z.ZodType | string;
  readonly problems?: readonly number[];
}

const confirm = (what: string) => z.strictObject({ confirm: z.string().describe(what) });

const OPERATIONS: Readonly<Record<string, Readonly<Record<string, Operation>>>> = {
  '/healthz': { get: { summary: 'Whether the process lives.', open: true, answer: 'text/plain' } },
  '/readyz': {
    get: { summary: 'Whether new sessions are taken; 503 says why not.', open: true, answer: 'text/plain' },
  },
  '/metrics': { get: { summary: 'Prometheus text.', open: true, answer: 'text/plain' } },
  '/console': { get: { summary: 'The page.', open: true, answer: 'text/html' } },
  '/overview': {
    get: {
      summary: 'The last second, and the last hour.',
      query: overviewQuerySchema,
      answer: overviewSchema,
      problems: [400],
    },
  },
  '/overview/stream': {
    get: {
      summary: 'Server-sent events: `board` once a second, as the first part of GET /overview.',
      answer: 'text/event-stream',
      problems: [503],
    },
  },
  '/sessions': {
    get: {
      summary: 'Sessions of this replica, page by page.',
      query: sessionQuerySchema,
      answer: sessionPageSchema,
      problems: [400],
    },
  },
  '/sessions/{id}': {
    get: {
      summary: 'A session with its links and what happened beside its turns.',
      answer: sessionDetailSchema,
      problems: [404],
    },
  },
  '/sessions/{id}/turns': {
    get: {
      summary: 'The turns of a session that are remembered.',
      query: turnQuerySchema,
      answer: turnPageSchema,
      problems: [400, 404],
    },
  },
  '/sessions/{id}/turns/{turnId}/cancel': {
    post: {
      summary: 'Cancels a turn, as its client could.',
      body: confirm('The id of the turn.'),
      status: 202,
      answer: actedSchema,
      problems: [400, 403, 404, 413, 415, 504],
    },
  },
  '/sessions/{id}/drain': {
    post: {
      summary: 'Lets running turns finish within drain.timeout, and sends the client elsewhere.',
      body: confirm('The id of the session.'),
      status: 202,
      answer: actedSchema,
      problems: [400, 403, 404, 413, 415, 504],
    },
  },
  '/drain': {
    post: {
      summary: 'Ends the gateway as SIGTERM does.',
      body: confirm('The word drain.'),
      status: 202,
      answer: actedSchema,
      problems: [400, 403, 409, 413, 415],
    },
  },
  '/loglevel': {
    get: { summary: 'The lowest level that is written.', answer: levelSchema },
    put: {
      summary: 'Changes it until the next start.',
      body: z.strictObject({ level: z.string() }),
      answer: levelSchema,
      problems: [400],
    },
    post: {
      summary: 'The same, confirmed.',
      body: z.strictObject({ level: z.string(), confirm: z.string().describe('The level.') }),
      answer: levelSchema,
      problems: [400, 403, 413, 415],
    },
  },
};

/** OpenAPI 3.1, whose schemas are JSON Schema. */
export function renderAdminApi(): string {
  const description = {
    openapi: '3.1.0',
    info: {
      title: 'responses-gateway admin port',
      version: '1',
      description:
        'What the console, `responses-gateway top` and scripts use. Times are milliseconds, sizes bytes. Nothing here holds content.',
      license: { name: 'Apache-2.0' },
    },
    components: {
      securitySchemes: {
        token: {
          type: 'http',
          scheme: 'bearer',
          description: 'admin.token_file; without one only loopback is answered.',
        },
      },
      schemas: { Problem: schemaOf(problemSchema) },
    },
    paths: Object.fromEntries(
      Object.entries(OPERATIONS).map(([path, methods]) => [
        path,
        Object.fromEntries(
          Object.entries(methods).map(([method, operation]) => [method, describe(path, operation)]),
        ),
      ]),
    ),
  };
  return `${JSON.stringify(description, null, 2)}\n`;
}

/** Of each path the methods, for a test that there are no others. */
export function describedMethods(): Readonly<Record<string, readonly string[]>> {
  return Object.fromEntries(
    Object.entries(OPERATIONS).map(([path, methods]) => [
      path,
      Object.keys(methods).map((name) => name.toUpperCase()),
    ]),
  );
}

function describe(path: string, operation: Operation): object {
  const { summary, query, body, status = 200, answer, problems = [] } = operation;
  const guarded = operation.open === true ? [] : [401, 403];
  const parameters = [...pathParameters(path), ...queryParameters(query)];
  return {
    summary,
    security: operation.open === true ? [] : [{ token: [] }],
    ...(parameters.length > 0 && { parameters }),
    ...(body !== undefined && {
      requestBody: { required: true, content: { 'application/json': { schema: schemaOf(body) } } },
    }),
    responses: {
      [status]: { description: 'Done.', content: contentOf(answer) },
      ...Object.fromEntries(
        [...new Set([...problems, ...guarded, 421])].sort().map((code) => [
          code,
          {
            description: PROBLEMS[code] ?? 'Refused.',
            content: { 'application/json': { schema: { $ref: '#/components/schemas/Problem' } } },
          },
        ]),
      ),
    },
  };
}

const PROBLEMS: Readonly<Record<number, string>> = {
  400: 'A parameter or field is not valid, or a confirmation is missing.',
  401: 'No token, or a wrong one.',
  403: 'From outside without a token, or from a page of another site.',
  404: 'There is no such session or turn.',
  409: 'Not possible as the gateway was started.',
  413: 'The body is too large.',
  415: 'The body is not JSON.',
  421: 'The Host header is not in admin.allowed_hosts.',
  503: 'Too many look on.',
  504: 'A worker did not answer in time; it may still do what was asked for.',
};

function contentOf(answer: z.ZodType | string): object {
  return typeof answer === 'string' ? { [answer]: {} } : { 'application/json': { schema: schemaOf(answer) } };
}

function pathParameters(path: string): object[] {
  return [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }));
}

function queryParameters(query: z.ZodObject | undefined): object[] {
  const { properties = {} } = query === undefined ? {} : schemaOf(query);
  return Object.entries(properties).map(([name, { description, ...schema }]) => ({
    name,
    in: 'query',
    ...(description !== undefined && { description }),
    schema,
  }));
}

interface JsonSchema {
  readonly properties?: Readonly<Record<string, { readonly description?: string }>>;
  readonly [keyword: string]: unknown;
}

function schemaOf(schema: z.ZodType): JsonSchema {
  const { $schema, ...rest } = z.toJSONSchema(schema, { io: 'input' });
  return rest as JsonSchema;
}
