export interface ChatConnection {
  readonly tls: boolean;
  /** Variable with the bearer token, and whether it is set. */
  readonly tokenEnv: string;
  readonly hasToken: boolean;
  readonly caFile: string | undefined;
}

/** What to do about a session that could not be opened. */
export function connectionHelp(message: string, { tls, tokenEnv, hasToken, caFile }: ChatConnection): string {
  if (/UNAUTHENTICATED/.test(message)) {
    return hasToken
      ? `the gateway does not take the token in ${tokenEnv}; --token-env names another variable`
      : `the gateway wants a token: export ${tokenEnv}=…, or name another variable with --token-env`;
  }
  if (!tls && /over TLS|ECONNRESET|read ETIMEDOUT/i.test(message)) {
    return 'that port speaks TLS, it seems: --tls, with --ca-file FILE for an authority of your own';
  }
  if (tls && /unexpected.message|wrong version number|packet length too long|http request/i.test(message)) {
    return 'that port speaks no TLS, it seems: leave --tls and --ca-file away';
  }
  if (tls && /self.signed|unable to (?:verify|get)|certificate has expired|CERT/i.test(message)) {
    return /altname|alt.name|Hostname/i.test(message)
      ? "connect by a name that is in the gateway's certificate: --address NAME:PORT"
      : caFile === undefined
        ? "name the authority of the gateway's certificate: --ca-file FILE"
        : `the gateway's certificate is not of an authority in ${caFile}`;
  }
  if (/admin port/.test(message)) return 'name the port of "listen" with --address HOST:PORT';
  return 'start a gateway with "npm start", or name one with --address HOST:PORT';
}
