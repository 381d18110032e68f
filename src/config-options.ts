import { join } from 'node:path';
import { policyModes } from './authz/policy-mode.ts';
import { defaultJwtTtlSeconds, jwtTtlBounds } from './ca/jwt.ts';
import { jwtKeyTypes } from './ca/jwt-slot.ts';
import type { Config } from './config.ts';
import {
  absolutePath,
  address,
  authorityKeyTypes,
  credentialPath,
  defaultTrustDomain,
  descriptor,
  httpsIssuer,
  integer,
  keyName,
  kubeletUrl,
  logLevels,
  loopbackAddress,
  namespaceName,
  noteKeys,
  oneOf,
  optional,
  plainText,
  spiffeIds,
  unlessOff,
  uids,
  zeroOr,
} from './config-values.ts';
import { defaultTtlSeconds, maxTtlSeconds, minTtlSeconds } from './identity/entry.ts';
import { TrustDomain } from './spiffe/id.ts';
import { checkIssuer } from './spiffe/jwt-issuer.ts';

/** One option: what it is when nobody sets it, what it means, and how its text is read. */
export type OptionSpec<T> = {
  /** The default as text; some follow from where data and sockets are. */
  readonly ordinarily: string | ((places: { readonly dataDir: string; readonly runDir: string }) => string);
  /** For people: help texts and docs/configuration.md. */
  readonly help: string;
  /** Throws an Error that says what is wrong with the text. */
  readonly parse: (text: string, environment: Readonly<Record<string, string | undefined>>) => T;
  /** Written as a number in a configuration file, not as a string. */
  readonly isNumber?: true;
};

/** Every option of {@link Config}, in the order in which people are shown them. */
export const optionTable: { readonly [K in keyof Config]: OptionSpec<Config[K]> } = {
  trustDomain: {
    ordinarily: '',
    help: `the trust domain, fixed by the first start; ${defaultTrustDomain} when nothing names one`,
    parse: optional((text) => TrustDomain.parse(text)),
  },
  dataDir: {
    ordinarily: ({ dataDir }) => dataDir,
    help: 'where the database and the sealed keys are kept',
    parse: absolutePath,
  },
  workloadSocket: {
    ordinarily: ({ runDir }) => join(runDir, 'workload.sock'),
    help: 'Unix socket for proxies: SDS and ext_authz',
    parse: absolutePath,
  },
  adminSocket: {
    ordinarily: ({ runDir }) => join(runDir, 'admin.sock'),
    help: 'Unix socket of the admin API, for this machine',
    parse: absolutePath,
  },
  adminAddress: {
    ordinarily: '127.0.0.1:7443',
    help: 'host:port of the admin API over TLS, or off',
    parse: address,
  },
  metricsAddress: {
    ordinarily: 'off',
    help: 'loopback host:port where anybody on this machine may read health and metrics, or off',
    parse: loopbackAddress,
  },
  trustAddress: {
    ordinarily: 'off',
    help: 'host:port of the public door for the trust bundle, or off',
    parse: address,
  },
  sdsAddress: {
    ordinarily: 'off',
    help: 'host:port of SDS over the network, for clients that show a live certificate of ours, or off',
    parse: address,
  },
  nodeAddress: {
    ordinarily: 'off',
    help: 'host:port where agents of other machines come in, or off; 127.0.0.1:7444 for countersign server',
    parse: address,
  },
  nodeCaFile: {
    ordinarily: '',
    help: 'PEM file with the CAs of machine certificates that agents may attest with',
    parse: optional(absolutePath),
  },
  nodeClustersFile: {
    ordinarily: '',
    help: 'YAML file with the Kubernetes clusters whose nodes may attest with a service account token',
    parse: optional(absolutePath),
  },
  maxStalenessSeconds: {
    ordinarily: '86400',
    help: 'how long an agent cut off from here decides by the policy it has; then it denies',
    parse: integer(60, 2_592_000),
    isNumber: true,
  },
  allowedCallsWindowSeconds: {
    ordinarily: '10',
    help: 'how long allowed calls of one kind are counted together in the log; 0 for a record of each',
    parse: integer(0, 300),
    isNumber: true,
  },
  trustTlsCertificate: {
    ordinarily: '',
    help: 'PEM file of a web certificate for the public door; without one it shows an X509-SVID',
    parse: optional(absolutePath),
  },
  trustTlsKey: {
    ordinarily: '',
    help: 'PEM file with the key of that certificate',
    parse: optional(absolutePath),
  },
  adminUids: {
    ordinarily: '',
    help: 'further uids that may use the admin socket, separated by commas',
    parse: uids,
  },
  adminSpiffeIds: {
    ordinarily: '',
    help: 'SPIFFE IDs that have the role admin over TLS, separated by commas',
    parse: spiffeIds,
  },
  oidcIssuer: {
    ordinarily: '',
    help: 'https URL of the issuer whose ID tokens people may use the admin API with',
    parse: optional(httpsIssuer),
  },
  oidcAudience: {
    ordinarily: '',
    help: 'the aud of those ID tokens: the client that people sign in to',
    parse: optional(plainText),
  },
  oidcJwksFile: {
    ordinarily: '',
    help: 'file with the JWKS of that issuer; without one it is fetched',
    parse: optional(absolutePath),
  },
  oidcCaFile: {
    ordinarily: '',
    help: 'PEM file with the CAs of that issuer; without one those of the system',
    parse: optional(absolutePath),
  },
  oidcGroupsClaim: {
    ordinarily: 'groups',
    help: 'the claim of those ID tokens that grants to groups are about',
    parse: plainText,
  },
  oidcMaxAgeSeconds: {
    ordinarily: '43200',
    help: 'how long after its iat such an ID token counts, whatever its exp says',
    parse: integer(60, 86_400),
    isNumber: true,
  },
  rootNamespace: {
    ordinarily: 'istio-system',
    help: 'policies of this namespace apply to every workload',
    parse: namespaceName,
  },
  authzenNamespace: {
    ordinarily: '',
    help: 'namespace whose policies judge what AuthZEN asks about users and other things that are no workloads',
    parse: optional(namespaceName),
  },
  policyMode: {
    ordinarily: 'strict',
    help: 'strict, or istio: calls are judged as Istio does, and what no ALLOW policy is about is allowed',
    parse: oneOf(policyModes),
  },
  auditOrigin: {
    ordinarily: '',
    help: 'what the audit log is called in its checkpoints, fixed by the first start; <trust domain>/audit when empty',
    parse: optional(keyName),
  },
  auditWitnessesFile: {
    ordinarily: '',
    help: 'file with the witnesses that cosign the audit log, and which of them are a quorum (C2SP tlog-policy)',
    parse: optional(absolutePath),
  },
  auditWitnessesCaFile: {
    ordinarily: '',
    help: 'PEM file with the CAs of the certificates that they show; without one those of the system',
    parse: optional(absolutePath),
  },
  witnessLogs: {
    ordinarily: '',
    help: 'verifier keys of audit logs that this server is a witness of, separated by spaces',
    parse: noteKeys,
  },
  witnessName: {
    ordinarily: '',
    help: 'what this witness is called, fixed by its first start; <trust domain>/witness when empty',
    parse: optional(keyName),
  },
  retainCallsDays: {
    ordinarily: '0',
    help: 'how many days the log keeps the contents of entries about calls; 0: for ever',
    parse: integer(0, 36_500),
    isNumber: true,
  },
  retainPersonalDays: {
    ordinarily: '0',
    help: 'how many days personal values are kept beside the log; 0: for ever',
    parse: integer(0, 36_500),
    isNumber: true,
  },
  retainRecordsDays: {
    ordinarily: '0',
    help: 'how many days, 90 or more, the log keeps the contents of all other entries; 0: for ever',
    parse: zeroOr(integer(90, 36_500)),
    isNumber: true,
  },
  leafTtlSeconds: {
    ordinarily: `${defaultTtlSeconds}`,
    help: 'lifetime of a certificate whose entry names none',
    parse: integer(minTtlSeconds, maxTtlSeconds),
    isNumber: true,
  },
  jwtTtlSeconds: {
    ordinarily: `${defaultJwtTtlSeconds}`,
    help: 'longest and usual lifetime of a JWT-SVID',
    parse: integer(jwtTtlBounds.minSeconds, jwtTtlBounds.maxSeconds),
    isNumber: true,
  },
  jwtIssuer: {
    ordinarily: '',
    help: 'the iss of JWT-SVIDs, an https URL, for relying parties that want one',
    parse: optional(checkIssuer),
  },
  jwtKeyType: {
    ordinarily: 'ec-p256',
    help: 'ec-p256 or rsa-2048: the kind of key that the next JWT key is, for ES256 or RS256',
    parse: oneOf(jwtKeyTypes),
  },
  passphraseFile: {
    ordinarily: '',
    help: 'file with the passphrase that seals the CA keys; without one a key file is made',
    parse: optional(absolutePath),
  },
  passphraseCredential: {
    ordinarily: '',
    help: 'name of the systemd credential with that passphrase, as LoadCredential= gives it',
    parse: (text, environment) =>
      text === '' ? null : credentialPath(text, environment['CREDENTIALS_DIRECTORY']),
  },
  passphraseFd: {
    ordinarily: '',
    help: 'file descriptor to read that passphrase from, to its end',
    parse: descriptor,
    isNumber: true,
  },
  authorityKeyType: {
    ordinarily: 'ec-p256',
    help: 'ec-p256 or ec-p384: the keys of new roots and intermediates',
    parse: oneOf(authorityKeyTypes),
  },
  nameConstraints: {
    ordinarily: 'off',
    help: 'uri: new CAs may sign only for URI names of the trust domain; off',
    parse: oneOf(['off', 'uri']),
  },
  refusedKeysFile: {
    ordinarily: '',
    help: 'file with keys that get no certificate: SHA-256 of the SPKI, one a line',
    parse: optional(absolutePath),
  },
  attestKubelet: {
    ordinarily: 'off',
    help: 'URL of the kubelet of this node for k8s selectors, or off',
    parse: kubeletUrl,
  },
  attestKubeletCaFile: {
    ordinarily: '/var/run/secrets/kubernetes.io/serviceaccount/ca.crt',
    help: 'PEM file with the CAs of its certificate',
    parse: absolutePath,
  },
  attestKubeletTokenFile: {
    ordinarily: '/var/run/secrets/kubernetes.io/serviceaccount/token',
    help: 'file with the service account token for it',
    parse: absolutePath,
  },
  attestDocker: {
    ordinarily: 'off',
    help: 'Unix socket of the Docker engine for docker selectors, or off',
    parse: unlessOff(absolutePath),
  },
  logLevel: {
    ordinarily: 'warn',
    help: 'error, warn, info or debug; logs are JSON lines on standard error',
    parse: oneOf(logLevels),
  },
  shutdownGraceSeconds: {
    ordinarily: '5',
    help: 'how long a stop waits for open streams',
    parse: integer(0, 300),
    isNumber: true,
  },
};
