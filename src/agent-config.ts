import { createPrivateKey } from 'node:crypto';
import { existsSync } from 'node:fs';
import { parseVerifierKey } from './audit/note.ts';
import { type Config, type ConfigSources, loadConfig } from './config.ts';
import { defaultDataDirectory } from './config-places.ts';
import { address, type LogLevel } from './config-values.ts';
import { MeshError, quote } from './errors.ts';
import type { AttestationMethod } from './identity/node.ts';
import { defaultTokenFile, readKubernetesToken } from './node/kubernetes-token-file.ts';
import type { Evidence } from './node/node-client.ts';
import type { ServerAddress } from './node/server-trust.ts';
import type { TrustDomain } from './spiffe/id.ts';
import { decodePem } from './spiffe/pem.ts';
import { readListFile, readPrivateFile } from './store/key-files.ts';

type MachineEvidence = Extract<Evidence, { kind: 'x509pop' }>;

/** Everything that can be configured of an agent. */
export type AgentConfig = {
  readonly server: ServerAddress;
  /** Null: that of the server which is trusted. */
  readonly trustDomain: TrustDomain | null;
  /** Holds the sealed cache; 0700. */
  readonly dataDir: string;
  readonly workloadSocket: string;
  readonly sdsAddress: Config['sdsAddress'];
  /** Status and metrics, for this machine, 0600. */
  readonly adminSocket: string;
  /** Further uids that may use it. */
  readonly adminUids: readonly number[];
  /** Health and metrics for whoever is on this machine, or null when it is off. */
  readonly metricsAddress: { readonly host: string; readonly port: number } | null;
  /** Reads `cst1...`, or null: anew each time, for another one may be put there. @throws MeshError as the start does */
  readonly joinToken: () => string | null;
  /** Reads the machine's own certificate and key, or null: anew each time, too. @throws MeshError as the start does */
  readonly machine: () => MachineEvidence | null;
  /** Reads the service account token of this pod, or null: anew each time, for it is replaced. @throws MeshError */
  readonly kubernetes: () => Extract<Evidence, { kind: 'k8s_psat' }> | null;
  /** What it can attest with again and again; null when there is nothing but a join token. */
  readonly attestsWith: AttestationMethod | null;
  /** CA certificates, DER, or null. */
  readonly trustRoots: readonly Uint8Array[] | null;
  /** SHA-256 of the root, lower-case hex, or null. */
  readonly trustRootSha256: string | null;
  readonly attest: {
    readonly kubelet: { readonly url: URL; readonly tokenFile: string; readonly caFile: string } | null;
    readonly docker: string | null;
  };
  /** What the audit log of the server is verified with, name+keyId+base64; null for the key that it names first. */
  readonly auditLogKey: string | null;
  /** Whether a certificate is refused whose issuance is not proven to be in that log. */
  readonly requireIssuanceProof: boolean;
  /** For how long allowed calls of one kind are counted together, 0 to 300; 0 for a record of each. */
  readonly allowedCallsWindowSeconds: number;
  readonly logLevel: LogLevel;
  readonly shutdownGraceSeconds: number;
};

/** Flags of `countersign agent`; each has a variable of the environment with `COUNTERSIGN_` before it. */
export const agentOptions = {
  serverAddress: 'host:port of the node API of the server',
  joinTokenFile: 'file with the join token, mode 0600; needed once',
  machineCertificate: "PEM file of this machine's own certificate, leaf first, in place of a join token",
  machineKey: 'PEM file with the key of that certificate, mode 0600',
  cluster: 'what the server calls the Kubernetes cluster of this node, to attest by a service account token',
  kubernetesTokenFile: `file with that token; ${defaultTokenFile} when only the cluster is given`,
  trustBundle: 'PEM file with the CAs of the server; needs --trust-domain',
  trustBundleSha256: 'SHA-256 of the root of the server, in hex',
  trustDomain: 'the trust domain the server must be of',
  workloadSocket: 'Unix socket for proxies and workloads',
  sdsAddress: 'host:port of SDS over the network, for clients that show a live certificate of ours, or off',
  adminSocket: 'Unix socket for status and metrics',
  adminUids: 'further uids that may use it, separated by commas',
  metricsAddress: 'loopback host:port where anybody on this machine may read health and metrics, or off',
  auditLogKey:
    'what countersign audit key prints, or a file with it; left out, the first that the server names',
  requireIssuanceProof: 'true to refuse certificates that are not proven to be in the audit log',
  attestKubelet: 'URL of the kubelet of this node, or off',
  attestKubeletCaFile: 'PEM with the CAs of the kubelet',
  attestKubeletTokenFile: 'file with the token for the kubelet',
  attestDocker: 'socket of the Docker engine, or off',
  allowedCallsWindowSeconds:
    'how long allowed calls of one kind are counted together in the log; 0 for a record of each',
  logLevel: 'error, warn, info or debug',
  shutdownGraceSeconds: 'how long a stop waits for open streams',
} as const;
export type AgentOption = keyof typeof agentOptions;

/**
 * Reads the configuration of an agent. Secrets come from files, never from arguments.
 * @throws MeshError `config_invalid`, `file_missing`, `file_permissions`
 */
export function loadAgentConfig(
  flags: Partial<Record<AgentOption | 'dataDir', string>>,
  sources: Pick<ConfigSources, 'environment' | 'isRoot'>,
): AgentConfig {
  const textOf = (name: AgentOption): string | null =>
    flags[name] ?? sources.environment[environmentName(name)] ?? null;
  const dataDir =
    flags.dataDir ?? sources.environment['COUNTERSIGN_DATA_DIR'] ?? `${defaultDataDirectory(sources)}-agent`;
  const { serverAddress, joinTokenFile, ...more } = flags;
  const common = loadConfig({
    flags: { ...pickShared(more), dataDir },
    environment: sources.environment,
    file: null,
    isRoot: sources.isRoot,
  });
  const { attestKubelet: url, attestKubeletCaFile: caFile, attestKubeletTokenFile } = common;
  const pin = textOf('trustBundleSha256');
  if (pin !== null && !/^[0-9a-f]{64}$/i.test(pin)) refuse('trustBundleSha256', 'is not 64 hex digits');
  const bundleFile = textOf('trustBundle');
  if (bundleFile !== null && common.trustDomain === null) {
    refuse('trustDomain', 'is not set, and trustBundle needs it');
  }
  const tokenFile = joinTokenFile ?? textOf('joinTokenFile');
  const joinToken = () => readJoinToken(tokenFile);
  const machine = () => readMachine(textOf('machineCertificate'), textOf('machineKey'));
  // What is wrong with them now is told now.
  joinToken();
  machine();
  return {
    server: readServer(serverAddress ?? textOf('serverAddress')),
    trustDomain: common.trustDomain,
    dataDir: common.dataDir,
    workloadSocket: common.workloadSocket,
    sdsAddress: common.sdsAddress,
    adminSocket: common.adminSocket,
    adminUids: common.adminUids,
    metricsAddress: common.metricsAddress,
    joinToken,
    machine,
    kubernetes: kubernetesReader(textOf('cluster'), textOf('kubernetesTokenFile')),
    attestsWith:
      textOf('machineCertificate') !== null ? 'x509pop' : textOf('cluster') !== null ? 'k8s_psat' : null,
    trustRoots: bundleFile === null ? null : readCertificates(bundleFile),
    trustRootSha256: pin?.toLowerCase() ?? null,
    attest: {
      kubelet: url === null ? null : { url, caFile, tokenFile: attestKubeletTokenFile },
      docker: common.attestDocker,
    },
    auditLogKey: readLogKey(textOf('auditLogKey')),
    requireIssuanceProof: readSwitch('requireIssuanceProof', textOf('requireIssuanceProof') ?? 'false'),
    allowedCallsWindowSeconds: common.allowedCallsWindowSeconds,
    logLevel: common.logLevel,
    shutdownGraceSeconds: common.shutdownGraceSeconds,
  };
}

function pickShared(flags: Partial<Record<AgentOption | 'dataDir', string>>) {
  return Object.fromEntries(
    shared.flatMap((name) => {
      const value = flags[name];
      return value === undefined ? [] : [[name, value]];
    }),
  );
}

function readServer(text: string | null): ServerAddress {
  if (text === null) return refuse('serverAddress', 'is not set');
  try {
    return address(text) ?? refuse('serverAddress', 'is off');
  } catch {
    return refuse('serverAddress', `${quote(text)} is not host:port`);
  }
}

/** A token that was used up may be gone: the cache goes on without it. */
function readJoinToken(file: string | null): string | null {
  if (file === null || !existsSync(file)) return null;
  return Buffer.from(readPrivateFile(file)).toString('utf8').trim();
}

function readMachine(certificate: string | null, keyFile: string | null): MachineEvidence | null {
  if (certificate === null && keyFile === null) return null;
  if (certificate === null || keyFile === null) return refuse('machineKey', 'goes with machineCertificate');
  const pem = Buffer.from(readPrivateFile(keyFile)).toString('utf8');
  const privateKey = attempt('machineKey', () =>
    createPrivateKey(pem).export({ type: 'pkcs8', format: 'der' }),
  );
  return {
    kind: 'x509pop',
    certificates: readCertificates(certificate),
    privateKey: new Uint8Array(privateKey),
  };
}

/** The file is not looked at now: it may come with the pod's first token. */
function kubernetesReader(cluster: string | null, file: string | null): AgentConfig['kubernetes'] {
  if (cluster === null && file === null) return () => null;
  if (cluster === null) return refuse('cluster', 'is not set, and kubernetesTokenFile needs it');
  const from = file ?? defaultTokenFile;
  return () => ({ kind: 'k8s_psat', cluster, token: readKubernetesToken(from) });
}

function readCertificates(file: string): readonly Uint8Array[] {
  return attempt(file, () =>
    decodePem(readListFile(file, maxPemBytes), 'CERTIFICATE', { maxBytes: maxPemBytes }),
  );
}

function readLogKey(text: string | null): string | null {
  if (text === null) return null;
  const key = /^[^+]+\+[0-9a-f]{8}\+/.test(text) ? text : readListFile(text, maxPemBytes).trim();
  attempt('auditLogKey', () => parseVerifierKey(key));
  return key;
}

function readSwitch(name: string, text: string): boolean {
  if (text === 'true' || text === 'false') return text === 'true';
  return refuse(name, `${quote(text)} is neither true nor false`);
}

function attempt<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (cause instanceof MeshError && !unreadable.has(cause.code)) throw cause;
    // What a key cannot be read for is told by nobody: its text stays where it is.
    const why = cause instanceof MeshError ? cause.message : 'cannot be read';
    throw new MeshError('config_invalid', `${quote(what)}: ${why}`, {
      fix: 'see countersign agent --help',
      cause,
    });
  }
}

function refuse(what: string, why: string): never {
  throw new MeshError('config_invalid', `${what} ${why}`, {
    fix: `set --${kebab(what)} or ${environmentName(what)}`,
  });
}

/** The variable of the environment that stands for an option. */
export function environmentName(name: string): string {
  return `COUNTERSIGN_${name.replace(/[A-Z]+/g, (part) => `_${part}`).toUpperCase()}`;
}

/** An option's name as a flag spells it. */
export function kebab(name: string): string {
  return name.replace(/[A-Z]+/g, (part) => `-${part.toLowerCase()}`);
}

const unreadable: ReadonlySet<string> = new Set(['der_invalid', 'audit_note_invalid']);
const shared = [
  'trustDomain',
  'workloadSocket',
  'sdsAddress',
  'adminSocket',
  'adminUids',
  'metricsAddress',
  'attestKubelet',
  'attestKubeletCaFile',
  'attestKubeletTokenFile',
  'attestDocker',
  'allowedCallsWindowSeconds',
  'logLevel',
  'shutdownGraceSeconds',
] as const;
const maxPemBytes = 262_144;
