/** Writes config.schema.json and docs/configuration.md from the zod schema. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { renderJsonSchema, renderReference } from '../src/config/reference.ts';

const root = new URL('../', import.meta.url);

mkdirSync(new URL('docs', root), { recursive: true });
writeFileSync(new URL('config.schema.json', root), renderJsonSchema());
writeFileSync(new URL('docs/configuration.md', root), renderReference());
