/** Turns that together show most of what an endpoint says. They cost a few hundred tokens. */
export interface Scenario {
  readonly name: string;
  /** Fields of the create beside the model. */
  readonly create: Readonly<Record<string, unknown>>;
}

const WEATHER = {
  type: 'function',
  name: 'weather',
  description: 'Tells the weather of a city.',
  parameters: {
    type: 'object',
    properties: { city: { type: 'string' } },
    required: ['city'],
    additionalProperties: false,
  },
  strict: true,
};

export const SCENARIOS: readonly Scenario[] = [
  { name: 'text', create: { input: 'Say hello.' } },
  { name: 'function call', create: { input: 'Weather in Oslo?', tools: [WEATHER], tool_choice: 'required' } },
  {
    name: 'reasoning',
    create: {
      input: 'How many primes are there below 20? #reasoning',
      reasoning: { effort: 'low', summary: 'auto' },
      include: ['reasoning.encrypted_content'],
    },
  },
  {
    name: 'unknown parent',
    create: { input: 'Go on.', previous_response_id: 'resp_00000000000000000000000000000000' },
  },
];
