import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Two cores are what CI has; more workers only make real-socket tests fight for them.
    maxWorkers: 2,
    // Real sockets on a shared machine: one late answer must not stop a landing. Tests with seeds of their own say no.
    retry: process.env.CI === undefined ? 0 : 1,
    testTimeout: 20_000,
    hookTimeout: 20_000,
  },
});
