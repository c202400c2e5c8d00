/** Shapes of secrets: provider keys, the gateway's own keys, bearer and basic credentials, JSON Web Tokens. */
const SECRETS =
  /\b(?:(?:sk|xai|gsk)-|rgk_)[A-Za-z0-9_-]{8,}|\b(?:Bearer|Basic)\s+[A-Za-z0-9+/._~=-]{8,}|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*/gi;

const REDACTED = '[redacted]';

/** Takes everything that looks like a secret out of a text. */
export function scrub(text: string): string {
  return text.replace(SECRETS, REDACTED);
}

/**
 * Fields that hold secrets, at any depth of a line of JSON: their value goes, be it a text, a number, or a list or
 * mapping without further ones in it. A safety net under code that does not log them at all; done on the text
 * because pino's own redaction takes twenty times as long for nested paths.
 */
const SECRET_FIELDS =
  /"(authorization|proxy-authorization|cookie|set-cookie|x-upstream-api-key|api-?_?key|credential|headers|password|resume_?token|secret|token)":(?:"(?:[^"\\]|\\.)*"|\{[^{}]*\}|\[[^[\]]*\]|[^,{}[\]"]+)/gi;

/** The last hop of every log line. */
export function scrubLine(line: string): string {
  return scrub(line.replace(SECRET_FIELDS, '"$1":"[redacted]"'));
}

// An escaped backslash is matched first, so that the text `\\u001b` (a backslash and letters) stays as it is.
const ESCAPED_CONTROLS = /\\\\|\\u00(?:0[0-8be-f]|1[0-9a-f]|7f|[89][0-9a-f])|[\u007f-\u009f]/gi;

/**
 * Takes terminal control characters out of a line of JSON that will be printed decoded. Line breaks and tabs have
 * short escapes and stay.
 */
export function stripControls(json: string): string {
  return json.replace(ESCAPED_CONTROLS, (found) => (found === '\\\\' ? found : ''));
}
