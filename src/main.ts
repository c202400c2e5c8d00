#!/usr/bin/env node
import { enableCompileCache } from 'node:module';

// Compiled code is kept in the system's folder for temporary files, where it can be: half the time of the next start.
enableCompileCache();
const { run } = await import('./cli/program.ts');

// Not `process.exit`: output to pipes would be cut off. Whatever is still open has to be closed by who opened it.
process.exitCode = await run(process.argv.slice(2), process.env);
