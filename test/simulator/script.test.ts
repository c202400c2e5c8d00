import { describe, expect, it } from 'vitest';
import {
  InvalidSimulatorInput,
  parseScript,
  simulatorOptionsFromFile,
  startSimulator,
} from '../../src/simulator/index.ts';
import { functionTool, RawClient, simulator } from './support.ts';

const SCRIPT = `
rules:
  - when: { model: "gpt-*", input: "weather", calls: 0 }
    items:
      - { type: reasoning, summary: "They want the weather.", text: "raw thoughts" }
      - { type: function_call, name: weather, callId: call_w, arguments: { city: Oslo } }
      - { type: function_call, name: time, callId: call_t, arguments: "{}" }
  - when: { input: "weather" }
    items: [{ type: message, text: "Rain.", phase: final_answer }]
  - when: { input: "loop" }
    loop: { calls: 5, parallel: 2, tools: [step] }
    items: [{ type: message, text: done }]
  - when: { input: "search" }
    items:
      - { type: event, event: { type: response.web_search_call.searching, item_id: ws_1, output_index: 0 } }
      - { type: item, item: { id: ws_1, type: web_search_call, status: completed, action: { type: search, query: q } } }
    end: { status: incomplete, reason: content_filter }
  - when: { turn: 3 }
    items: [{ type: refusal }]
`;

describe('model scripts', () => {
  it('answer by model, input, turn and calls', async () => {
    const client = await RawClient.open(await simulator({ script: parseScript(SCRIPT) }));
    const first = await client.turn({ input: 'weather?' });
    expect(first.output.map((item) => item.type)).toEqual(['reasoning', 'function_call', 'function_call']);
    expect(first.output[1]).toMatchObject({
      name: 'weather',
      call_id: 'call_w',
      arguments: '{"city":"Oslo"}',
    });
    const outputs = ['call_w', 'call_t'].map((id) => ({
      type: 'function_call_output',
      call_id: id,
      output: 'x',
    }));
    const second = await client.turn({ input: outputs, previous_response_id: first.id });
    expect(second.output).toMatchObject([{ phase: 'final_answer', content: [{ text: 'Rain.' }] }]);
    const third = await client.turn({ input: 'and now', previous_response_id: second.id });
    const fourth = await client.turn({ input: 'and then', previous_response_id: third.id });
    expect(fourth.output).toMatchObject([{ content: [{ type: 'refusal' }] }]);
    client.create({ input: 'search' });
    await client.type('response.web_search_call.searching');
    const filtered = await client.terminal();
    expect(filtered).toMatchObject({
      type: 'response.incomplete',
      response: { incomplete_details: { reason: 'content_filter' }, output: [{ type: 'web_search_call' }] },
    });
  });

  it('loop over tools', async () => {
    const client = await RawClient.open(await simulator({ script: parseScript(SCRIPT) }));
    let turn = await client.turn({ input: 'loop', tools: [functionTool('step')] });
    const sizes: number[] = [];
    while (turn.output[0]?.type === 'function_call') {
      sizes.push(turn.output.length);
      const input = turn.output.map((item) => ({
        type: 'function_call_output',
        call_id: item.call_id,
        output: '',
      }));
      turn = await client.turn({ input, previous_response_id: turn.id });
    }
    expect(sizes).toEqual([2, 2, 1]);
  });

  it('that are wrong are refused with the path of every problem', () => {
    const wrong =
      'rules:\n  - items: [{ type: message, words: 3 }]\n  - when: { input: "(" }\n  - end: { status: nope }\n';
    expect(() => parseScript(wrong)).toThrow(InvalidSimulatorInput);
    try {
      parseScript(wrong);
    } catch (error) {
      const { problems } = error as InvalidSimulatorInput;
      expect(problems.map((problem) => problem.split(':')[0])).toEqual([
        'rules.0.items.0.words',
        'rules.1.when.input',
        'rules.2.end.status',
      ]);
    }
    expect(() => parseScript('a: [')).toThrow('script is not YAML');
  });
});

describe('options', () => {
  it('come from a file object, with every problem named', async () => {
    const options = simulatorOptionsFromFile({
      port: 0,
      timing: { tokensPerSecond: 100 },
      faults: [{ kind: 'cut', atEvent: 3 }],
      script: { rules: [] },
    });
    // Only what the file says: defaults come later, beneath what a caller adds.
    expect(options.timing).toEqual({ tokensPerSecond: 100 });
    const running = await startSimulator(options);
    expect(running.settings.timing).toEqual({
      handshakeMs: 0,
      timeToFirstTokenMs: 0,
      tokensPerSecond: 100,
      costPerInputTokenUs: 0,
    });
    await running.close();
    expect(() =>
      simulatorOptionsFromFile({
        port: 'x',
        faults: [{ kind: 'cut', atEvent: -1 }, { kind: 'boom' }],
        timng: {},
      }),
    ).toThrow(/port: .*faults\.0\.atEvent: .*faults\.1\.kind: .*timng/s);
    await expect(startSimulator({ port: 70_000 })).rejects.toThrow('port');
  });

  it('change at run time, one field at a time, and are checked', async () => {
    const running = await simulator({ switches: { maxLanes: 3 } });
    running.configure({ timing: { tokensPerSecond: 9 } });
    running.configure({ switches: { sparse: true } });
    expect(running.settings).toMatchObject({
      timing: { tokensPerSecond: 9 },
      switches: { maxLanes: 3, sparse: true },
    });
    expect(() => running.configure({ switches: { maxLanes: -1 } })).toThrow('switches.maxLanes');
    expect(running.settings.switches.maxLanes).toBe(3);
  });
});
