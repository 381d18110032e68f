import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { defaultJwtTtlSeconds, jwtTtlBounds } from './ca/jwt.ts';
import { type JwtKeyType, jwtKeyTypes } from './ca/jwt-slot.ts';
import {
  absolutePath,
  address,
  credentialPath,
  descriptor,
  integer,
  kubeletUrl,
  namespaceName,
  oneOf,
  uids,
} from './config-values.ts';
import { formatPlace, MeshError, quote } from './errors.ts';
import { defaultTtlSeconds, maxTtlSeconds, minTtlSeconds } from './identity/entry.ts';
import { TrustDomain } from './spiffe/id.ts';
import { checkIssuer } from './spiffe/jwt-issuer.ts';
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
  /** The public door for the trust bundle and OIDC discovery, or null when it is off. */
  readonly trustAddress: { readonly host: string; readonly port: number } | null;
  /** The node API, or null when it is off. */
  readonly nodeAddress: { readonly host: string; readonly port: number } | null;
  /** PEM with the CAs of machines that attest with a certificate of their own; null for none. */
  readonly nodeCaFile: string | null;
  /** How long an agent decides by a policy that the server has not confirmed; 60 to 2,592,000. */
  readonly maxStalenessSeconds: number;
  /** The certificate of the public door, PEM, leaf first; null shows an X509-SVID. Never without its key. */
  readonly trustTlsCertificate: string | null;
  readonly trustTlsKey: string | null;
  /** Further uids that may use the admin socket. The server's own and root always may. */
  readonly adminUids: readonly number[];
  /** Policies of this namespace apply to every workload. */
  readonly rootNamespace: string;
  /** Lifetime of a leaf whose entry names none. */
  readonly leafTtlSeconds: number;
  /** The longest and usual lifetime of a token, 20 to 86,400 seconds. */
  readonly jwtTtlSeconds: number;
  /** The `iss` of tokens, an https URL; null for none. */
  readonly jwtIssuer: string | null;
  /** The kind of the next key that is made to sign tokens. */
  readonly jwtKeyType: JwtKeyType;
  /** Opens the sealed keys; null makes a key file of its own beside the data. */
  readonly passphraseFile: string | null;
  /** The same as a systemd credential: the path of its file; only its name where `$CREDENTIALS_DIRECTORY` is not set. */
  readonly passphraseCredential: string | null;
  /** The same from a file descriptor that is open already: 0, or 3 and above. */
  readonly passphraseFd: number | null;
  /** The kind of key that new roots and intermediates have. */
  readonly authorityKeyType: AuthorityKeyType;
  /** `uri` confines new roots and intermediates to URI names of the trust domain. */
  readonly nameConstraints: 'off' | 'uri';
  /** Public keys that no certificate is made for, SHA-256 of the SPKI, one a line. */
  readonly refusedKeysFile: string | null;
  /** Where the kubelet of this node answers, for `k8s:*` selectors; null for none. */
  readonly attestKubelet: URL | null;
  /** PEM with the CAs of the kubelet's certificate. */
  readonly attestKubeletCaFile: string;
  /** The service account token for the kubelet. */
  readonly attestKubeletTokenFile: string;
  /** The Docker engine's Unix socket, for `docker:*` selectors; null for none. */
  readonly attestDocker: string | null;
  readonly logLevel: LogLevel;
  /** How long a stop waits for open streams. */
  readonly shutdownGraceSeconds: number;
};

/** The trust domain of a first start that is told nothing. */
export const defaultTrustDomain = 'mesh.internal';

/** Kinds of CA keys, by the names options have for them. */
export const authorityKeyTypes = ['ec-p256', 'ec-p384'] as const;
export type AuthorityKeyType = (typeof authorityKeyTypes)[number];

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
  const optionalPath = (name: keyof Config): string | null =>
    read(text(name), name, (value) => (value === '' ? null : absolutePath(value)));
  const [trustTlsCertificate, trustTlsKey] = [
    optionalPath('trustTlsCertificate'),
    optionalPath('trustTlsKey'),
  ];
  if ((trustTlsCertificate === null) !== (trustTlsKey === null)) {
    throw new MeshError('config_invalid', 'trustTlsCertificate and trustTlsKey belong together', {
      fix: 'set both or neither',
    });
  }
  return {
    trustDomain: read(text('trustDomain'), 'trustDomain', (value) =>
      value === '' ? null : TrustDomain.parse(value),
    ),
    dataDir: read(text('dataDir'), 'dataDir', absolutePath),
    workloadSocket: read(text('workloadSocket'), 'workloadSocket', absolutePath),
    adminSocket: read(text('adminSocket'), 'adminSocket', absolutePath),
    adminAddress: read(text('adminAddress'), 'adminAddress', address),
    trustAddress: read(text('trustAddress'), 'trustAddress', address),
    nodeAddress: read(text('nodeAddress'), 'nodeAddress', address),
    nodeCaFile: optionalPath('nodeCaFile'),
    maxStalenessSeconds: read(text('maxStalenessSeconds'), 'maxStalenessSeconds', integer(60, 2_592_000)),
    trustTlsCertificate,
    trustTlsKey,
    adminUids: read(text('adminUids'), 'adminUids', uids),
    rootNamespace: read(text('rootNamespace'), 'rootNamespace', namespaceName),
    leafTtlSeconds: read(text('leafTtlSeconds'), 'leafTtlSeconds', integer(minTtlSeconds, maxTtlSeconds)),
    jwtTtlSeconds: read(
      text('jwtTtlSeconds'),
      'jwtTtlSeconds',
      integer(jwtTtlBounds.minSeconds, jwtTtlBounds.maxSeconds),
    ),
    jwtIssuer: read(text('jwtIssuer'), 'jwtIssuer', (value) => (value === '' ? null : checkIssuer(value))),
    jwtKeyType: read(text('jwtKeyType'), 'jwtKeyType', (value) => {
      const keyType = jwtKeyTypes.find((known) => known === value);
      if (keyType === undefined) throw new Error(`is not one of ${jwtKeyTypes.join(', ')}`);
      return keyType;
    }),
    passphraseFile: read(text('passphraseFile'), 'passphraseFile', (value) =>
      value === '' ? null : absolutePath(value),
    ),
    passphraseCredential: read(text('passphraseCredential'), 'passphraseCredential', (value) =>
      value === '' ? null : credentialPath(value, sources.environment['CREDENTIALS_DIRECTORY']),
    ),
    passphraseFd: read(text('passphraseFd'), 'passphraseFd', descriptor),
    authorityKeyType: read(text('authorityKeyType'), 'authorityKeyType', oneOf(authorityKeyTypes)),
    nameConstraints: read(text('nameConstraints'), 'nameConstraints', oneOf(['off', 'uri'])),
    refusedKeysFile: read(text('refusedKeysFile'), 'refusedKeysFile', (value) =>
      value === '' ? null : absolutePath(value),
    ),
    attestKubelet: read(text('attestKubelet'), 'attestKubelet', kubeletUrl),
    attestKubeletCaFile: read(text('attestKubeletCaFile'), 'attestKubeletCaFile', absolutePath),
    attestKubeletTokenFile: read(text('attestKubeletTokenFile'), 'attestKubeletTokenFile', absolutePath),
    attestDocker: read(text('attestDocker'), 'attestDocker', (value) =>
      value === 'off' ? null : absolutePath(value),
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
    option('trustAddress', 'off', 'host:port of the public door for the trust bundle, or off'),
    option(
      'nodeAddress',
      'off',
      'host:port where agents of other machines come in, or off; 127.0.0.1:7444 for countersign server',
    ),
    option('nodeCaFile', '', 'PEM file with the CAs of machine certificates that agents may attest with'),
    option(
      'maxStalenessSeconds',
      '86400',
      'how long an agent cut off from here decides by the policy it has; then it denies',
    ),
    option(
      'trustTlsCertificate',
      '',
      'PEM file of a web certificate for the public door; without one it shows an X509-SVID',
    ),
    option('trustTlsKey', '', 'PEM file with the key of that certificate'),
    option('adminUids', '', 'further uids that may use the admin socket, separated by commas'),
    option('rootNamespace', 'istio-system', 'policies of this namespace apply to every workload'),
    option('leafTtlSeconds', `${defaultTtlSeconds}`, 'lifetime of a certificate whose entry names none'),
    option('jwtTtlSeconds', `${defaultJwtTtlSeconds}`, 'longest and usual lifetime of a JWT-SVID'),
    option('jwtIssuer', '', 'the iss of JWT-SVIDs, an https URL, for relying parties that want one'),
    option(
      'jwtKeyType',
      'ec-p256',
      'ec-p256 or rsa-2048: the kind of key that the next JWT key is, for ES256 or RS256',
    ),
    option(
      'passphraseFile',
      '',
      'file with the passphrase that seals the CA keys; without one a key file is made',
    ),
    option(
      'passphraseCredential',
      '',
      'name of the systemd credential with that passphrase, as LoadCredential= gives it',
    ),
    option('passphraseFd', '', 'file descriptor to read that passphrase from, to its end'),
    option('authorityKeyType', 'ec-p256', 'ec-p256 or ec-p384: the keys of new roots and intermediates'),
    option('nameConstraints', 'off', 'uri: new CAs may sign only for URI names of the trust domain; off'),
    option('refusedKeysFile', '', 'file with keys that get no certificate: SHA-256 of the SPKI, one a line'),
    option('attestKubelet', 'off', 'URL of the kubelet of this node for k8s selectors, or off'),
    option('attestKubeletCaFile', `${inPod}/ca.crt`, 'PEM file with the CAs of its certificate'),
    option('attestKubeletTokenFile', `${inPod}/token`, 'file with the service account token for it'),
    option('attestDocker', 'off', 'Unix socket of the Docker engine for docker selectors, or off'),
    option('logLevel', 'warn', 'error, warn, info or debug; logs are JSON lines on standard error'),
    option('shutdownGraceSeconds', '5', 'how long a stop waits for open streams'),
  ];
}

// Where Kubernetes puts what a pod shows of itself.
const inPod = '/var/run/secrets/kubernetes.io/serviceaccount';

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

const optionNames: readonly (keyof Config)[] = [
  'trustDomain',
  'dataDir',
  'workloadSocket',
  'adminSocket',
  'adminAddress',
  'trustAddress',
  'nodeAddress',
  'nodeCaFile',
  'maxStalenessSeconds',
  'trustTlsCertificate',
  'trustTlsKey',
  'adminUids',
  'rootNamespace',
  'leafTtlSeconds',
  'jwtTtlSeconds',
  'jwtIssuer',
  'jwtKeyType',
  'passphraseFile',
  'passphraseCredential',
  'passphraseFd',
  'authorityKeyType',
  'nameConstraints',
  'refusedKeysFile',
  'attestKubelet',
  'attestKubeletCaFile',
  'attestKubeletTokenFile',
  'attestDocker',
  'logLevel',
  'shutdownGraceSeconds',
];

const numberOptions = new Set<keyof Config>([
  'passphraseFd',
  'leafTtlSeconds',
  'maxStalenessSeconds',
  'jwtTtlSeconds',
  'shutdownGraceSeconds',
]);

function environmentName(name: string): string {
  return `COUNTERSIGN_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

/** An option's name as a flag spells it. */
export function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
