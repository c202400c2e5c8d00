/**
 * A gateway for the tests of programs. {@link dev.responsesgateway.testing.FakeGateway} runs in the test's process and
 * answers turns by a script.
 */
package dev.responsesgateway.testing;
