import { readFileSync } from 'node:fs';
import type { NoteKey } from './audit/note.ts';
import type { PolicyMode } from './authz/policy-mode.ts';
import type { JwtKeyType } from './ca/jwt-slot.ts';
import { optionTable } from './config-options.ts';
import { defaultDataDirectory, defaultRunDirectory } from './config-places.ts';
import type { AuthorityKeyType, LogLevel } from './config-values.ts';
import { formatPlace, MeshError, quote } from './errors.ts';
import type { SpiffeId, TrustDomain } from './spiffe/id.ts';
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
  /** Health and metrics for whoever is on this machine, or null when it is off. */
  readonly metricsAddress: { readonly host: string; readonly port: number } | null;
  /** The public door for the trust bundle and OIDC discovery, or null when it is off. */
  readonly trustAddress: { readonly host: string; readonly port: number } | null;
  /** SDS over the network, for whoever shows a certificate that may be renewed so; null when it is off. */
  readonly sdsAddress: { readonly host: string; readonly port: number } | null;
  /** The node API, or null when it is off. */
  readonly nodeAddress: { readonly host: string; readonly port: number } | null;
  /** PEM with the CAs of machines that attest with a certificate of their own; null for none. */
  readonly nodeCaFile: string | null;
  /** YAML with the Kubernetes clusters whose nodes may attest with a service account token; null for none. */
  readonly nodeClustersFile: string | null;
  /** How long an agent decides by a policy that the server has not confirmed; 60 to 2,592,000. */
  readonly maxStalenessSeconds: number;
  /** For how long allowed calls of one kind are counted together in the log, 0 to 300; 0 for a record of each. */
  readonly allowedCallsWindowSeconds: number;
  /** The certificate of the public door, PEM, leaf first; null shows an X509-SVID. Never without its key. */
  readonly trustTlsCertificate: string | null;
  readonly trustTlsKey: string | null;
  /** Further uids that may use the admin socket. The server's own and root always may. */
  readonly adminUids: readonly number[];
  /** Workloads that are administrators over TLS with their certificates. Of our trust domain, which the start proves. */
  readonly adminSpiffeIds: readonly SpiffeId[];
  /** The `iss` of ID tokens that people may use the admin API with, an https URL; null for none. Never without audience. */
  readonly oidcIssuer: string | null;
  /** The `aud` they must have. */
  readonly oidcAudience: string | null;
  /** Its JWKS; null fetches it from where the discovery document of the issuer says. */
  readonly oidcJwksFile: string | null;
  /** PEM with the CAs of the issuer's own certificate; null for those of the system. */
  readonly oidcCaFile: string | null;
  /** The claim that grants to groups are about. */
  readonly oidcGroupsClaim: string;
  /** How long after its `iat` an ID token counts, 60 to 86,400 seconds. */
  readonly oidcMaxAgeSeconds: number;
  /** Policies of this namespace apply to every workload. */
  readonly rootNamespace: string;
  /** Where AuthZEN's subjects and resources that are no workloads are judged; null where there are none. */
  readonly authzenNamespace: string | null;
  /** How policies are read when a proxy asks, here and at every agent. */
  readonly policyMode: PolicyMode;
  /** What the audit log is called: the name of the key of its checkpoints. Null: `<trust domain>/audit`. */
  readonly auditOrigin: string | null;
  /** The policy of witnesses that cosign our checkpoints, a file as tlog-policy has it; null for none. */
  readonly auditWitnessesFile: string | null;
  /** PEM with the CAs of the certificates that witnesses show; null for those of the system. */
  readonly auditWitnessesCaFile: string | null;
  /** Verifier keys of the logs of others that this server is a witness of. */
  readonly witnessLogs: readonly NoteKey[];
  /** What this witness is called: the name of its key. Null: `<trust domain>/witness`. */
  readonly witnessName: string | null;
  /** How many days contents of the audit log are kept; 0: for ever. Records at least 90, all at most 36,500. */
  readonly retainCallsDays: number;
  readonly retainPersonalDays: number;
  readonly retainRecordsDays: number;
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
  const values = options.map(({ name, env, defaultText }) => {
    const flag = sources.flags[name];
    const variable = sources.environment[env];
    let sourced: Sourced = fromFile.get(name) ?? { text: defaultText, source: 'the default' };
    if (flag !== undefined) sourced = { text: flag, source: `--${kebab(name)}` };
    else if (variable !== undefined) sourced = { text: variable, source: env };
    return [name, read(sourced, name, (text) => optionTable[name].parse(text, sources.environment))];
  });
  // The table has one parser for each name, of the type that Config gives it.
  const config = Object.fromEntries(values) as Config;
  if ((config.trustTlsCertificate === null) !== (config.trustTlsKey === null)) {
    throw new MeshError('config_invalid', 'trustTlsCertificate and trustTlsKey belong together', {
      fix: 'set both or neither',
    });
  }
  if ((config.oidcIssuer === null) !== (config.oidcAudience === null)) {
    throw new MeshError('config_invalid', 'oidcIssuer and oidcAudience belong together', {
      fix: 'set both or neither: a token for any audience would be believed',
    });
  }
  // Whoever may change an entry would be any person: no JWT-SVID is an ID token.
  if (config.oidcIssuer !== null && config.oidcIssuer === config.jwtIssuer) {
    throw new MeshError('config_invalid', 'oidcIssuer is the jwtIssuer of this server itself', {
      fix: 'name another issuer; a workload administers with its certificate and a grant to its SPIFFE ID',
    });
  }
  // Its policies would bind every workload.
  if (config.authzenNamespace === config.rootNamespace) {
    throw new MeshError('config_invalid', 'authzenNamespace is the rootNamespace', {
      fix: 'set aside a namespace in which no workload lives',
    });
  }
  return config;
}

/** Every option with its default on this machine, for help texts and docs/configuration.md. */
export function configOptions(
  sources: Pick<ConfigSources, 'isRoot' | 'environment' | 'flags'>,
): readonly ConfigOption[] {
  const dataDir =
    sources.flags.dataDir ?? sources.environment['COUNTERSIGN_DATA_DIR'] ?? defaultDataDirectory(sources);
  const places = { dataDir, runDir: defaultRunDirectory(sources, dataDir) };
  return optionNames.map((name) => {
    const { ordinarily, help } = optionTable[name];
    const defaultText = typeof ordinarily === 'string' ? ordinarily : ordinarily(places);
    return { name, env: environmentName(name), defaultText, help };
  });
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
      const value = optionTable[name].isNumber === true ? String(node.integer()) : node.string();
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

const optionNames = Object.keys(optionTable) as readonly (keyof Config)[];

function environmentName(name: string): string {
  return `COUNTERSIGN_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

/** An option's name as a flag spells it. */
export function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
