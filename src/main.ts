#!/usr/bin/env node
import { run } from './cli/program.ts';

// Not `process.exit`: output to pipes would be cut off. Whatever is still open has to be closed by who opened it.
process.exitCode = await run(process.argv.slice(2), process.env);
