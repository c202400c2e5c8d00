/** Writes config.schema.json and docs/configuration.md from the zod schema. */
import { renderJsonSchema, renderReference } from '../../src/config/reference.ts';
import { write } from './write.ts';

write({ 'config.schema.json': renderJsonSchema(), 'docs/configuration.md': renderReference() });
