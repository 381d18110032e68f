import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { formatPlace, MeshError, quote } from './errors.ts';
import { defaultTtlSeconds, maxTtlSeconds, minTtlSeconds } from './identity/entry.ts';
import { TrustDomain } from './spiffe/id.ts';
import { readDocuments } from './yaml.ts';

/** Everything that can be configured; every option has a default, so that the first start needs no file. */
export type Config = {
  /** Null: the one of the data directory, or `mesh.internal` in a new one. */
  readonly trustDomain: TrustDomain | null;
  /** Holds the database, the sealed keys and the lock; 0700. */
  readonly dataDir: string;
  /** What proxies and workloads connect to: SDS and ext_authz. */
  readonly workloadSocket: string;
  /** The admin API for this machine, 0600, authorised by uid. */
  readonly adminSocket: string;
  /** The admin API over TLS, or null when it is off. */
  readonly adminAddress: { readonly host: string; readonly port: number } | null;
  /** Further uids that may use the admin socket. The server's own and root always may. */
  readonly adminUids: readonly number[];
  /** Policies of this namespace apply to every workload. */
  readonly rootNamespace: string;
  /** Lifetime of a leaf whose entry names none. */
  readonly leafTtlSeconds: number;
  /** Opens the sealed keys; null makes a key file of its own beside the data. */
  readonly passphraseFile: string | null;
  readonly logLevel: LogLevel;
  /** How long a stop waits for open streams. */
  readonly shutdownGraceSeconds: number;
};

/** The trust domain of a first start that is told nothing. */
export const defaultTrustDomain = 'mesh.internal';

export const logLevels = ['error', 'warn', 'info', 'debug'] as const;
export type LogLevel = (typeof logLevels)[number];

/** One option: its name in a configuration file, its environment variable, its default and what it means. */
export type ConfigOption = {
  readonly name: keyof Config;
  readonly env: string;
  readonly defaultText: string;
  readonly help: string;
};

/** The values of options as text, by name: flags win over the environment, the environment over the file. */
export type ConfigText = Partial<Record<keyof Config, string>>;

/** Sources of configuration, so that nothing below reads the process. */
export type ConfigSources = {
  readonly flags: ConfigText;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** A YAML file of `name: value` lines, or null. */
  readonly file: string | null;
  readonly isRoot: boolean;
};

/**
 * Reads and checks the configuration.
 * @throws MeshError `config_invalid` naming the option and where its value came from
 */
export function loadConfig(sources: ConfigSources): Config {
  const file = sources.file ?? sources.environment['COUNTERSIGN_CONFIG'] ?? null;
  const fromFile = file === null ? new Map<string, Sourced>() : readConfigFile(file);
  const options = configOptions(sources);
  const text = (name: keyof Config): Sourced => {
    const option = options.find((candidate) => candidate.name === name) as ConfigOption;
    const flag = sources.flags[name];
    if (flag !== undefined) return { text: flag, source: `--${kebab(name)}` };
    const variable = sources.environment[option.env];
    if (variable !== undefined) return { text: variable, source: option.env };
    return fromFile.get(name) ?? { text: option.defaultText, source: 'the default' };
  };
  return {
    trustDomain: read(text('trustDomain'), 'trustDomain', (value) =>
      value === '' ? null : TrustDomain.parse(value),
    ),
    dataDir: read(text('dataDir'), 'dataDir', absolutePath),
    workloadSocket: read(text('workloadSocket'), 'workloadSocket', absolutePath),
    adminSocket: read(text('adminSocket'), 'adminSocket', absolutePath),
    adminAddress: read(text('adminAddress'), 'adminAddress', address),
    adminUids: read(text('adminUids'), 'adminUids', uids),
    rootNamespace: read(text('rootNamespace'), 'rootNamespace', namespaceName),
    leafTtlSeconds: read(text('leafTtlSeconds'), 'leafTtlSeconds', integer(minTtlSeconds, maxTtlSeconds)),
    passphraseFile: read(text('passphraseFile'), 'passphraseFile', (value) =>
      value === '' ? null : absolutePath(value),
    ),
    logLevel: read(text('logLevel'), 'logLevel', (value) => {
      const level = logLevels.find((known) => known === value);
      if (level === undefined) throw new Error(`is not one of ${logLevels.join(', ')}`);
      return level;
    }),
    shutdownGraceSeconds: read(text('shutdownGraceSeconds'), 'shutdownGraceSeconds', integer(0, 300)),
  };
}

/** Every option with its default on this machine, for help texts and docs/configuration.md. */
export function configOptions(
  sources: Pick<ConfigSources, 'isRoot' | 'environment' | 'flags'>,
): readonly ConfigOption[] {
  const dataDir =
    sources.flags.dataDir ?? sources.environment['COUNTERSIGN_DATA_DIR'] ?? defaultDataDirectory(sources);
  const runDir = defaultRunDirectory(sources, dataDir);
  const option = (name: keyof Config, defaultText: string, help: string): ConfigOption => ({
    name,
    env: environmentName(name),
    defaultText,
    help,
  });
  return [
    option(
      'trustDomain',
      '',
      `the trust domain, fixed by the first start; ${defaultTrustDomain} when nothing names one`,
    ),
    option('dataDir', dataDir, 'where the database and the sealed keys are kept'),
    option('workloadSocket', join(runDir, 'workload.sock'), 'Unix socket for proxies: SDS and ext_authz'),
    option('adminSocket', join(runDir, 'admin.sock'), 'Unix socket of the admin API, for this machine'),
    option('adminAddress', '127.0.0.1:7443', 'host:port of the admin API over TLS, or off'),
    option('adminUids', '', 'further uids that may use the admin socket, separated by commas'),
    option('rootNamespace', 'istio-system', 'policies of this namespace apply to every workload'),
    option('leafTtlSeconds', `${defaultTtlSeconds}`, 'lifetime of a certificate whose entry names none'),
    option(
      'passphraseFile',
      '',
      'file with the passphrase that seals the CA keys; without one a key file is made',
    ),
    option('logLevel', 'warn', 'error, warn, info or debug; logs are JSON lines on standard error'),
    option('shutdownGraceSeconds', '5', 'how long a stop waits for open streams'),
  ];
}

/** Where data lives when nothing says otherwise. */
export function defaultDataDirectory(sources: Pick<ConfigSources, 'isRoot' | 'environment'>): string {
  if (sources.isRoot) return '/var/lib/countersign';
  const state = xdgDirectory(sources.environment['XDG_STATE_HOME']) ?? join(homedir(), '.local', 'state');
  return join(state, 'countersign');
}

/**
 * Where sockets live when nothing says otherwise. An authority with a data directory of its own choice keeps its
 * sockets beside that data, so that two of them never meet.
 */
export function defaultRunDirectory(
  sources: Pick<ConfigSources, 'isRoot' | 'environment'>,
  dataDir: string,
): string {
  if (resolve(dataDir) !== resolve(defaultDataDirectory(sources))) return `${resolve(dataDir)}.run`;
  if (sources.isRoot) return '/run/countersign';
  const runtime = xdgDirectory(sources.environment['XDG_RUNTIME_DIR']);
  return runtime === undefined ? `${resolve(dataDir)}.run` : join(runtime, 'countersign');
}

/** An empty or relative path is to be ignored (XDG Base Directory Specification): it would move with the caller. */
function xdgDirectory(path: string | undefined): string | undefined {
  return path?.startsWith('/') === true ? path : undefined;
}

type Sourced = { readonly text: string; readonly source: string };

function readConfigFile(file: string): Map<string, Sourced> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new MeshError('config_invalid', `cannot read configuration file ${quote(file)}`, {
      cause,
      fix: 'check the path and its permissions',
    });
  }
  const values = new Map<string, Sourced>();
  for (const document of readDocuments({ file, text })) {
    if (document.apiVersion !== configApiVersion || document.kind !== configKind) {
      throw document.root.error(
        'document_kind_unknown',
        'is not a configuration',
        `begin it with apiVersion: ${configApiVersion} and kind: ${configKind}`,
      );
    }
    const spec = document.root.mapping(['apiVersion', 'kind', 'spec']).required('spec').mapping(optionNames);
    for (const name of optionNames) {
      const node = spec.optional(name);
      if (node === undefined) continue;
      const value = numberOptions.has(name) ? String(node.integer()) : node.string();
      values.set(name, { text: value, source: formatPlace(node.place) });
    }
  }
  return values;
}

/** What a configuration file says of itself; its `spec` holds `name: value` lines. */
export const configApiVersion = 'countersign.dev/v1';
export const configKind = 'Configuration';

function read<T>(sourced: Sourced, name: keyof Config, parse: (text: string) => T): T {
  try {
    return parse(sourced.text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : 'is not valid';
    throw new MeshError('config_invalid', `${name} ${quote(sourced.text)} from ${sourced.source}: ${why}`, {
      cause,
      fix: `set ${name} in the configuration file, ${environmentName(name)} or --${kebab(name)}`,
    });
  }
}

function absolutePath(value: string): string {
  if (value === '') throw new Error('is empty');
  return resolve(value);
}

function address(value: string): Config['adminAddress'] {
  if (value === 'off') return null;
  const match = /^(\[[0-9a-f:]+\]|[0-9a-z.-]+):([0-9]{1,5})$/i.exec(value);
  const port = Number(match?.[2]);
  if (match?.[1] === undefined || port > 65_535) throw new Error('is not host:port or off');
  return { host: match[1].replace(/^\[|\]$/g, ''), port };
}

function uids(value: string): readonly number[] {
  if (value.trim() === '') return [];
  return value.split(',').map((part) => integer(0, 0xffff_ffff)(part.trim()));
}

function namespaceName(value: string): string {
  if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(value)) throw new Error('is not a namespace name');
  return value;
}

function integer(min: number, max: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (!/^[0-9]{1,10}$/.test(value) || number < min || number > max) {
      throw new Error(`is not a whole number from ${min} to ${max}`);
    }
    return number;
  };
}

const optionNames: readonly (keyof Config)[] = [
  'trustDomain',
  'dataDir',
  'workloadSocket',
  'adminSocket',
  'adminAddress',
  'adminUids',
  'rootNamespace',
  'leafTtlSeconds',
  'passphraseFile',
  'logLevel',
  'shutdownGraceSeconds',
];

const numberOptions = new Set<keyof Config>(['leafTtlSeconds', 'shutdownGraceSeconds']);

function environmentName(name: string): string {
  return `COUNTERSIGN_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
