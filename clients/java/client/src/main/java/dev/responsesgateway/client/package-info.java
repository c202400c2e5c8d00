/**
 * The Java client of responses-gateway. Five nouns: a {@link dev.responsesgateway.client.Client} says where the gateway
 * is, a {@link dev.responsesgateway.client.Session} is one stream with its own upstream connection, a
 * {@link dev.responsesgateway.client.Lane} is one line of conversation in a session, a
 * {@link dev.responsesgateway.client.Turn} is one response and everything until its end, and an
 * {@link dev.responsesgateway.client.Event} is one thing that happened.
 *
 * <p>Ending a wait (an interrupt, a timeout) loses nothing: work ends by {@code cancel}, by a request's timeout or by
 * closing the session. A lost stream is resumed by itself, without gap or repeat, and a turn that may have run is never
 * run again. All methods may be called from any thread, but one turn has one reader at a time.
 */
package dev.responsesgateway.client;
