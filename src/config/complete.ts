/** From the keys of a file to the configuration: rules between keys, and defaults that hang on other keys. */

import type { Config, ListenSettings, RedisNode, RedisSettings, RedisTls } from './config.js';
import type { ConfigFile } from './schema.js';

/** What is wrong, and at which key. The sentence never holds a value from the file that may be secret. */
export interface ConfigProblem {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

export interface Completion {
  readonly config: Config;
  readonly problems: readonly ConfigProblem[];
}

/** @param password  what `redis.passwordFile` holds, where that key is set */
export function completeConfig(file: ConfigFile, password?: string): Completion {
  const problems: ConfigProblem[] = [];
  const report = (path: (string | number)[], message: string) => problems.push({ path, message });
  const names = new Set<string>();
  file.hosts.forEach((host, index) => {
    if (names.has(host.name)) report(['hosts', index, 'name'], `host "${host.name}" is there twice`);
    names.add(host.name);
  });
  const redis = completeRedis(file.redis, password, (key, message) => report(['redis', ...key], message));
  const listen = completeListen(file.api.listen, (key, message) => report(['api', 'listen', key], message));
  const { dataDir } = file;
  const store = file.stores?.[0] ?? { name: 'local', type: 'file' as const, path: `${dataDir}/store` };
  const { path: spool = `${dataDir}/spool`, ...room } = file.spool;
  if (spool === store.path) report(['spool', 'path'], 'is the same folder as the store');
  return {
    problems,
    config: {
      ...file,
      redis,
      spool: { path: spool, ...room },
      stores: [store],
      api: { enabled: file.api.enabled, listen, tokensFile: file.api.tokensFile ?? `${dataDir}/tokens.json` },
    },
  };
}

function completeRedis(
  file: ConfigFile['redis'],
  passwordFromFile: string | undefined,
  report: (key: (string | number)[], message: string) => void,
): RedisSettings {
  const { prefix, cluster, sentinel } = file;
  const mode = file.mode ?? (file.url === undefined && sentinel === undefined ? 'embedded' : 'external');
  if (mode === 'embedded') {
    for (const key of ['url', 'username', 'password', 'passwordFile', 'tls', 'sentinel'] as const) {
      if (file[key] !== undefined) report([key], 'has no meaning for the embedded Redis; set url, or remove it');
    }
    if (cluster) report(['cluster'], 'has no meaning for the embedded Redis; set url, or remove it');
    return { mode, prefix };
  }
  if (file.url === undefined && sentinel === undefined) report(['mode'], 'external needs url or sentinel');
  if (file.url !== undefined && sentinel !== undefined) report(['sentinel'], 'excludes url: use one of them');
  if (cluster && sentinel) report(['cluster'], 'excludes sentinel');
  if (file.password !== undefined && file.passwordFile !== undefined) {
    report(['passwordFile'], 'excludes password: use one of them');
  }
  const url = file.url === undefined ? undefined : splitRedisUrl(file.url, (message) => report(['url'], message));
  if (file.tls && url && !url.encrypted) report(['tls'], 'needs a url that begins with rediss://');
  if (file.tls && (file.tls.cert === undefined) !== (file.tls.key === undefined)) {
    report(['tls'], 'needs cert and key together, or none of them');
  }
  const ownPassword = file.password ?? passwordFromFile;
  if (url?.password !== undefined && ownPassword !== undefined) report(['url'], 'holds a password beside password');
  if (url?.username !== undefined && file.username !== undefined) report(['url'], 'holds a user beside username');
  const username = file.username ?? url?.username;
  const password = ownPassword ?? url?.password;
  const tls: RedisTls | undefined = file.tls ?? (url?.encrypted ? {} : undefined);
  return {
    mode,
    prefix,
    cluster,
    ...(url === undefined ? {} : { url: url.bare }),
    ...(sentinel === undefined ? {} : { sentinel: { name: sentinel.name, nodes: sentinel.nodes.map(parseNode) } }),
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(tls === undefined ? {} : { tls }),
  };
}

interface RedisUrl {
  readonly bare: string;
  readonly encrypted: boolean;
  readonly username?: string;
  readonly password?: string;
}

/** Takes user and password out of the URL, so that it can be shown and logged. */
function splitRedisUrl(text: string, report: (message: string) => void): RedisUrl {
  const nothing = { bare: '', encrypted: false };
  if (text.startsWith('unix://')) {
    if (!text.startsWith('unix:///')) report('needs an absolute path after unix://');
    return { bare: text, encrypted: false };
  }
  const scheme = /^rediss?:\/\/(?=[^/])/.exec(text);
  if (!scheme || !URL.canParse(text)) {
    report('must be redis://HOST[:PORT][/DB], rediss://… or unix:///PATH');
    return nothing;
  }
  const url = new URL(text);
  try {
    const username = decodeURIComponent(url.username);
    const password = decodeURIComponent(url.password);
    url.username = '';
    url.password = '';
    return {
      bare: url.href,
      encrypted: url.protocol === 'rediss:',
      ...(username === '' ? {} : { username }),
      ...(password === '' ? {} : { password }),
    };
  } catch {
    report('has a % in user or password that is not followed by two hex digits');
    return nothing;
  }
}

/** `HOST:PORT`, the form already checked by the schema. */
function parseNode(text: string): RedisNode {
  const colon = text.lastIndexOf(':');
  return { host: text.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(text.slice(colon + 1)) };
}

function completeListen(
  listen: ConfigFile['api']['listen'],
  report: (key: string, message: string) => void,
): ListenSettings {
  if (listen.socket === undefined) return { host: listen.host ?? '127.0.0.1', port: listen.port ?? 8350 };
  if (listen.host !== undefined) report('host', 'excludes socket: use one of them');
  if (listen.port !== undefined) report('port', 'excludes socket: use one of them');
  return { socket: listen.socket };
}
