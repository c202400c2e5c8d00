import type { Client, Event, InputItem, ResponseStream } from '../src/index.ts';
import { compareResult, equal, expecting, optionsOf } from './compare.ts';

// biome-ignore lint/suspicious/noExplicitAny: as in case-run.ts
type Fields = Readonly<Record<string, any>>;
type ReadInput = (input: unknown) => string | InputItem[];

/** The steps about turns without a session, and about stored responses. */
export class StoredSteps {
  readonly #client: () => Client;
  readonly #streams = new Map<string, { stream: ResponseStream; events: Event[] }>();

  constructor(client: () => Client) {
    this.#client = client;
  }

  async step(name: string, fields: Fields, inputOf: ReadInput): Promise<void> {
    await expecting(fields['error'], async () => {
      const { responses } = this.#client();
      const id = this.#streams.get(fields['response'])?.stream.result.responseId ?? fields['response'];
      switch (name) {
        case 'create':
          return this.#create(fields, inputOf);
        case 'follow':
          return this.#follow(id, fields);
        case 'get': {
          const { status, output } = await responses.get(id);
          equal('status', fields['status'], status);
          if (fields['text'] !== undefined) {
            const [message] = output.map(({ kind }) => (kind.case === 'message' ? kind.value : undefined));
            const part = message?.content[0]?.kind;
            equal('text', fields['text'], part?.case === 'outputText' ? part.value.text : undefined);
          }
          return;
        }
        case 'delete':
          return responses.delete(id);
        case 'cancel_response':
          return equal('status', fields['status'], (await responses.cancel(id)).status);
        case 'input_items': {
          const texts: string[] = [];
          const { limit, order } = fields;
          for await (const { kind } of responses.inputItems(id, { limit, order })) {
            if (kind.case !== 'message') continue;
            const [part] = kind.value.content;
            texts.push(part?.kind.case === 'inputText' ? part.kind.value.text : (kind.value.text ?? ''));
          }
          return equal('texts', JSON.stringify(fields['texts']), JSON.stringify(texts));
        }
        case 'count': {
          const count = await responses.countInputTokens({
            model: 'gpt-5.5',
            input: inputOf(fields['input']),
          });
          return equal('enough tokens', true, count >= fields['at_least']);
        }
        default: {
          const ids = (await responses.models()).map(({ id: each }) => each);
          return equal('models', JSON.stringify(fields['ids']), JSON.stringify(ids));
        }
      }
    });
  }

  async #create(fields: Fields, inputOf: ReadInput): Promise<void> {
    const request = {
      model: 'gpt-5.5',
      input: inputOf(fields['input']),
      ...(fields['background'] && { create: { background: true } }),
      ...optionsOf(fields['options'] ?? {}),
    };
    const { responses } = this.#client();
    const stream = responses.create(request, { idempotencyKey: fields['idempotency_key'] });
    const events: Event[] = [];
    this.#streams.set(fields['response'], { stream, events });
    await read(stream, events, fields, this.#client());
  }

  async #follow(id: string, fields: Fields): Promise<void> {
    const before = this.#streams.get(fields['response']);
    const startingAfter = fields['after_last'] ? before?.stream.lastSequenceNumber : undefined;
    const stream = this.#client().responses.stream(id, {
      ...(startingAfter !== undefined && { startingAfter }),
    });
    // With `together`, what was read before counts too.
    await read(stream, fields['together'] ? [...(before?.events ?? [])] : [], fields, this.#client());
  }
}

async function read(stream: ResponseStream, events: Event[], fields: Fields, client: Client): Promise<void> {
  let seen = 0;
  for await (const event of stream) {
    events.push(event);
    seen += 1;
    if (seen === fields['read']) return;
    if (seen === fields['close_client_after']) void client.close();
  }
  compareResult(fields, await stream.final(), events);
}
