#!/usr/bin/env node
import { enableCompileCache } from 'node:module';

// Compiled code is kept in the system's folder for temporary files, where it can be: half the time of the next start.
enableCompileCache();
const [command, ...rest] = process.argv.slice(2);
const adminListen = process.env['RESPONSES_GATEWAY_ADMIN_LISTEN'];
// As health checks ask, again and again; the environment goes before the file.
const isProbe = command === 'health' && rest.length === 0 && adminListen;
const probed = isProbe ? await (await import('./cli/health-probe.ts')).probe(adminListen) : undefined;

// Not `process.exit`: output to pipes would be cut off. Whatever is still open has to be closed by who opened it.
process.exitCode =
  probed ?? (await (await import('./cli/program.ts')).run(process.argv.slice(2), process.env));
