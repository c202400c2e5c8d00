/** Where the store is. Addresses are tried in the order given. */
export type StoreEndpoint =
  | { readonly kind: 'single'; readonly server: StoreAddress; readonly database: number }
  | {
      readonly kind: 'sentinel';
      readonly sentinels: readonly StoreAddress[];
      /** The name that the sentinels watch the primary under. */
      readonly primaryName: string;
      readonly database: number;
    }
  | { readonly kind: 'cluster'; readonly nodes: readonly StoreAddress[] };

export interface StoreAddress {
  readonly host: string;
  readonly port: number;
}

export interface StoreUrl {
  readonly endpoint: StoreEndpoint;
  readonly tls: boolean;
  readonly username: string | undefined;
  /** A password belongs in a file; one in the URL is taken all the same. */
  readonly password: string | undefined;
}

const FORMS =
  'valkey://host:6379/0, valkey+sentinel://host:26379,host:26379/primary/0 or valkey+cluster://host:6379,host:6379' +
  ' (redis instead of valkey means the same, valkeys and rediss mean TLS)';

const SHAPE = /^(valkey|redis)(s?)(?:\+(sentinel|cluster))?:\/\/(?:([^@/]*)@)?([^/?#]*)(\/[^?#]*)?$/;

/** Reads the URL of a store. Throws an Error that says what is wrong, without the URL's user and password. */
export function parseStoreUrl(text: string): StoreUrl {
  const match = SHAPE.exec(text.trim());
  if (match === null) throw new Error(`not a URL of a store; allowed: ${FORMS}`);
  const [, , secure = '', kind, login, hosts = '', path = ''] = match;
  const [username, password] = readLogin(login);
  return {
    tls: secure === 's',
    username,
    password,
    endpoint: readEndpoint(kind, hosts, path.split('/').slice(1).filter(Boolean)),
  };
}

function readEndpoint(kind: string | undefined, hosts: string, path: readonly string[]): StoreEndpoint {
  if (kind === 'cluster') {
    if (path.length > 0) throw new Error('a cluster has no databases: the URL ends with its last host');
    return { kind, nodes: readAddresses(hosts, 6379) };
  }
  if (kind === 'sentinel') {
    const [primaryName, database, ...rest] = path;
    if (primaryName === undefined || rest.length > 0)
      throw new Error('a URL of sentinels names the primary: valkey+sentinel://host:26379/primary');
    return { kind, sentinels: readAddresses(hosts, 26379), primaryName, database: readDatabase(database) };
  }
  const [server, ...others] = readAddresses(hosts, 6379);
  if (server === undefined || others.length > 0)
    throw new Error(`several hosts need +sentinel or +cluster; allowed: ${FORMS}`);
  if (path.length > 1) throw new Error('a URL of a store ends with a database number');
  return { kind: 'single', server, database: readDatabase(path[0]) };
}

function readLogin(login: string | undefined): readonly [string | undefined, string | undefined] {
  if (login === undefined) return [undefined, undefined];
  const colon = login.indexOf(':');
  const name = colon < 0 ? login : login.slice(0, colon);
  const password = colon < 0 ? undefined : login.slice(colon + 1);
  try {
    return [
      name === '' ? undefined : decodeURIComponent(name),
      password === undefined ? undefined : decodeURIComponent(password),
    ];
  } catch {
    throw new Error('user or password in the URL are not percent-encoded');
  }
}

function readDatabase(text: string | undefined): number {
  if (text === undefined) return 0;
  if (!/^\d{1,5}$/.test(text)) throw new Error(`${JSON.stringify(text)} is not the number of a database`);
  return Number(text);
}

function readAddresses(hosts: string, defaultPort: number): readonly StoreAddress[] {
  return hosts.split(',').map((text) => {
    const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/.exec(text.trim());
    const port = match?.[3] === undefined ? defaultPort : Number(match[3]);
    const host = match?.[1] ?? match?.[2];
    if (host === undefined || port < 1 || port > 65535)
      throw new Error(`${JSON.stringify(text)} is not a host and port`);
    return { host, port };
  });
}
