import { createHash } from 'node:crypto';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { addressKey } from '../grpc/address-key.ts';
import { asBuffer } from '../grpc/as-buffer.ts';
import type { LossEvent, NodeEvent } from '../audit/event.ts';
import type { PublicKey } from '../ca/public-key.ts';
import type { RandomBytes } from '../ca/serial.ts';
import type { Clock } from '../clock.ts';
import { MeshError, publicError } from '../errors.ts';
import { guardStream } from '../grpc/guard.ts';
import type { GrpcService } from '../grpc/listener.ts';
import { type TlsPeer, tlsPeerOf } from '../grpc/tls-connections.ts';
import type { BanList } from '../identity/ban-list.ts';
import type { IssuedX509 } from '../identity/issuer.ts';
import {
  type AttestationMethod,
  type AttestedNode,
  nodeSpiffeId,
  x509popNodeName,
} from '../identity/node.ts';
import { createRateLimit, type RateLimits } from '../identity/rate-limit.ts';
import { nodeSelector } from '../identity/node-selector.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import {
  AttestationService as Definition,
  type AttestRequest,
  type AttestResponse,
  type Evidence,
} from '../wire/node.ts';
import { challengeBytes, provesKey } from './challenge.ts';
import type { ProveKubernetes } from './kubernetes-attestor.ts';
import { proveMachine } from './machine-chain.ts';
import { type Attested, nodeEvent, type NodeRegistry, type NodeStore } from './node-registry.ts';
import { bundleToWire } from './view-wire.ts';

/** Makes a certificate for a node that was admitted. */
export type IssueNodeCertificate = (node: AttestedNode, publicKey: PublicKey) => Promise<IssuedX509>;

export type AttestationLimits = {
  /** Attempts of one address: an IPv4 address, or an IPv6 network of 64 bits. */
  readonly perAddress: RateLimits;
  /** Attempts under way at once, of all and of one address: one that says nothing takes its place to the end. */
  readonly atOnce: number;
  readonly atOncePerAddress: number;
  /** Refused attempts that are recorded one by one, of all addresses; the rest are counted: anybody can make them. */
  readonly refusals: RateLimits;
  /** From the first message of an attempt to its end. */
  readonly withinMs: number;
};

export const defaultAttestationLimits: AttestationLimits = {
  perAddress: { burst: 100, perSecond: 20 },
  atOnce: 256,
  atOncePerAddress: 64,
  refusals: { burst: 200, perSecond: 1 },
  withinMs: 15_000,
};

export type AttestationOptions = {
  readonly trustDomain: TrustDomain;
  readonly registry: Pick<NodeRegistry, 'admit' | 'certify'>;
  readonly findJoinToken: NodeStore['findJoinToken'];
  /** CAs of machine certificates, DER; none turns x509pop off. */
  readonly machineCas: readonly Uint8Array[];
  /** Absent when no Kubernetes cluster is known. */
  readonly proveKubernetes?: ProveKubernetes;
  readonly issue: IssueNodeCertificate;
  readonly readCsr: (csr: Uint8Array) => PublicKey | Promise<PublicKey>;
  readonly bundle: () => TrustBundle;
  readonly bans: () => BanList;
  /** Takes a refused attempt for the record without waiting. */
  readonly recordRefusal: (event: NodeEvent | LossEvent) => void;
  /** A certificate leaves for a node, together with the bundle. */
  readonly delivering?: (node: AttestedNode, issued: IssuedX509, bundle: TrustBundle) => void;
  readonly randomBytes: RandomBytes;
  readonly clock: Clock;
  readonly report?: (error: unknown) => void;
  readonly limits?: Partial<AttestationLimits>;
};

/**
 * Serves `Attest`: evidence in, certificate out. Join tokens are used up by one attempt, and whether one was used,
 * expired or never existed looks the same from outside. Machines with a certificate sign a challenge with its key. Why a
 * Kubernetes token does not count is told to the log alone.
 *
 * Calls fail with `node_evidence_invalid`, `csr_invalid`, `csr_proof_invalid`, `public_key_unsupported`,
 * `identity_banned`, `message_invalid`, `rate_limited`, `node_refused`, `node_attestor_unavailable`, `shutting_down`,
 * `store_unavailable`.
 */
export function createAttestationService(options: AttestationOptions): GrpcService {
  const { clock, report = () => undefined } = options;
  const limits = { ...defaultAttestationLimits, ...options.limits };
  const takeToken = createRateLimit<string>(limits.perAddress, clock);
  const recordRefusal = refusalRecorder(options, limits.refusals);
  const stop = new AbortController();
  let running = 0;
  const runningOf = new Map<string, number>();

  const attest = guardStream<AttestRequest, AttestResponse>(
    async (call, ended) => {
      const peer = tlsPeerOf(call);
      const address = addressKey(peer.remoteAddress);
      if (stop.signal.aborted) throw new MeshError('shutting_down', 'the server is shutting down');
      const ofAddress = runningOf.get(address) ?? 0;
      const isFull = running >= limits.atOnce || ofAddress >= limits.atOncePerAddress;
      if (isFull || !takeToken(address)) {
        throw new MeshError('rate_limited', 'too many nodes ask to be attested', { fix: 'try again later' });
      }
      running += 1;
      runningOf.set(address, ofAddress + 1);
      const late = new AbortController();
      const signal = AbortSignal.any([ended, stop.signal, late.signal]);
      void clock.sleep(limits.withinMs, ended).then(() => late.abort('late'));
      const asked: Asked = { peer, method: null, name: '', why: '' };
      try {
        await serve(options, asked, conversation(call, signal));
      } catch (error) {
        recordRefusal(asked, error);
        throw error;
      } finally {
        running -= 1;
        const left = (runningOf.get(address) ?? 1) - 1;
        if (left > 0) runningOf.set(address, left);
        else runningOf.delete(address);
      }
    },
    { report },
  );
  return {
    definition: Definition,
    implementation: { attest },
    requestBytes: maxRequestBytes,
    close: () => stop.abort('shutting down'),
  };
}

/** What is known of an attempt, for the record of its refusal. */
type Asked = {
  readonly peer: TlsPeer;
  method: AttestationMethod | null;
  name: string;
  /** What the log is told in place of the code of the error; empty when that says it all. */
  why: string;
};

type Conversation = {
  /** @throws MeshError `message_invalid` when it does not come, or not in time */
  readonly receive: () => Promise<AttestRequest>;
  readonly send: (response: AttestResponse) => void;
  /** Aborts when the peer has gone, or its time is over. */
  readonly signal: AbortSignal;
};

async function serve(options: AttestationOptions, asked: Asked, peer: Conversation): Promise<void> {
  const { step } = await peer.receive();
  if (step?.$case !== 'evidence') throw invalid('the first message is no evidence');
  const { evidence } = step;
  // The key first: whoever has a bad request must not use up a token.
  const publicKey = await options.readCsr(evidence.csr);
  const attested = await prove(options, asked, evidence, peer);
  asked.name = attested.name;
  // INVARIANT: whoever waits no longer is not let in: that would end what it was given since.
  if (peer.signal.aborted) throw invalid('the attempt is over: it took too long, or its sender has gone');
  demandNoBan(options, attested.name, publicKey);
  const admitted = await options.registry.admit({
    ...attested,
    keySha256: publicKey.spkiSha256,
    sourceAddress: asked.peer.remoteAddress,
  });
  const issued = await options.issue(admitted, publicKey);
  const { serial, notAfter, certificates } = issued;
  // INVARIANT: durable before it is handed out, so that no node holds a certificate that is not known to count.
  const node = await options.registry.certify(admitted, {
    serial,
    notAfter,
    shown: null,
    sourceAddress: asked.peer.remoteAddress,
  });
  const bundle = options.bundle();
  options.delivering?.(node, issued, bundle);
  peer.send({
    step: {
      $case: 'certificate',
      certificate: { certificates: certificates.map(asBuffer), bundle: bundleToWire(bundle) },
    },
  });
}

type Proven = Omit<Attested, 'sourceAddress' | 'keySha256'>;

async function prove(
  options: AttestationOptions,
  asked: Asked,
  { kind, csr }: Evidence,
  peer: Conversation,
): Promise<Proven> {
  switch (kind?.$case) {
    case 'joinToken':
      asked.method = 'join_token';
      return proveToken(options, kind.joinToken.secret);
    case 'x509pop':
      asked.method = 'x509pop';
      return provePossession(options, kind.x509pop.certificates, csr, peer);
    case 'kubernetes':
      asked.method = 'k8s_psat';
      return proveCluster(options, asked, kind.kubernetes, peer.signal);
    case undefined:
      throw invalid('the evidence is of no kind that is known here');
    default:
      return kind satisfies never;
  }
}

/** INVARIANT: from here on a token that is unknown takes the same steps as one that was used. */
async function proveToken({ findJoinToken }: AttestationOptions, secret: string): Promise<Proven> {
  if (!/^[0-9a-f]{64}$/.test(secret)) throw new MeshError('node_evidence_invalid', badToken);
  const tokenSha256 = joinTokenSha256(secret);
  const token = await findJoinToken(tokenSha256);
  return {
    name: token?.node ?? 'unknown',
    method: 'join_token',
    selectors: [
      ...nodeSelector('join_token', token?.node ?? ''),
      ...nodeSelector('join_token:id', token?.id ?? ''),
    ],
    tokenSha256,
  };
}

async function provePossession(
  { machineCas, clock, randomBytes }: AttestationOptions,
  chain: readonly Uint8Array[],
  csr: Uint8Array,
  peer: Conversation,
): Promise<Proven> {
  if (machineCas.length === 0) {
    throw new MeshError('node_evidence_invalid', 'this server takes no machine certificates');
  }
  const machine = proveMachine(chain, machineCas, clock.now());
  const nonce = randomBytes(challengeBytes);
  peer.send({ step: { $case: 'challenge', challenge: asBuffer(nonce) } });
  const { step } = await peer.receive();
  if (step?.$case !== 'challengeAnswer') throw invalid('the challenge was not answered');
  if (!provesKey(machine.publicKey.key, { nonce, csr }, step.challengeAnswer)) {
    throw new MeshError('node_evidence_invalid', 'the answer was not made with the key of the machine');
  }
  const name = x509popNodeName(machine.certificateSha256);
  return {
    name,
    method: 'x509pop',
    selectors: [
      ...nodeSelector('x509pop:certificate', machine.certificateSha256),
      ...nodeSelector('x509pop:ca:fingerprint', machine.caSha256),
      ...nodeSelector('x509pop:subject:cn', machine.commonName),
    ],
    tokenSha256: null,
  };
}

/** INVARIANT: all tokens that are refused are refused in the same words. */
async function proveCluster(
  { proveKubernetes }: AttestationOptions,
  asked: Asked,
  { cluster, token }: { readonly cluster: string; readonly token: string },
  signal: AbortSignal,
): Promise<Proven> {
  if (proveKubernetes === undefined) {
    throw new MeshError('node_evidence_invalid', 'this server takes no Kubernetes tokens');
  }
  const proven = await proveKubernetes(cluster, token, signal);
  if ('refused' in proven) {
    asked.why = proven.refused;
    throw new MeshError('node_evidence_invalid', badKubernetesToken, {
      fix: 'ask an operator: the log of the server says why',
    });
  }
  return { ...proven, method: 'k8s_psat', tokenSha256: null };
}

const badKubernetesToken = 'the Kubernetes token does not count';

/** What the store knows a join token by: SHA-256 of its 32 bytes, lower-case hex. */
export function joinTokenSha256(secret: string): string {
  return createHash('sha256').update(Buffer.from(secret, 'hex')).digest('hex');
}

/** What is told about a token that does not count, whatever the reason. */
export const badToken = 'the join token does not count: it was used, has expired, or never existed';

function demandNoBan({ trustDomain, bans, clock }: AttestationOptions, name: string, key: PublicKey): void {
  const id = nodeSpiffeId(trustDomain, name);
  if (bans().find({ id, spkiSha256: key.spkiSha256 }, clock.now()) === undefined) return;
  throw new MeshError('identity_banned', 'the node is banned, or its public key is', {
    fix: 'ask an operator, who sees why with `countersign ban list`',
  });
}

function refusalRecorder(
  { clock, recordRefusal: record }: AttestationOptions,
  limits: RateLimits,
): (asked: Asked, error: unknown) => void {
  const mayRecord = createRateLimit<'all'>(limits, clock);
  let untold: { count: number; readonly from: Date; to: Date } | undefined;
  return ({ peer, method, name, why }, error) => {
    const { code } = publicError(error);
    if (code === 'store_unavailable' || code === 'shutting_down') return;
    const now = clock.now();
    if (!mayRecord('all')) {
      untold ??= { count: 0, from: now, to: now };
      untold.count += 1;
      untold.to = now;
      return;
    }
    if (untold !== undefined) {
      record({ type: 'loss', time: now, what: 'refusal', ...untold, cause: 'attestation' });
    }
    untold = undefined;
    const node = { name, method: method ?? ('' as const), selectors: [] };
    record(nodeEvent(node, 'refused', now, { code: why || code, sourceAddress: peer.remoteAddress }));
  };
}

/** Messages one at a time: what comes unasked waits, and ends the conversation when it is more than one. */
function conversation(
  call: ServerDuplexStream<AttestRequest, AttestResponse>,
  signal: AbortSignal,
): Conversation {
  const messages = call[Symbol.asyncIterator]() as AsyncIterator<AttestRequest>;
  const over = new Promise<never>((_, reject) => {
    const end = () => reject(invalid('the answer did not come in time'));
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
  });
  over.catch(() => undefined);
  return {
    receive: async () => {
      const next = await Promise.race([messages.next(), over]);
      if (next.done === true) throw invalid('the answer did not come');
      return next.value;
    },
    send: (response) => void call.write(response),
    signal,
  };
}

function invalid(why: string): MeshError {
  return new MeshError('message_invalid', why);
}

const maxRequestBytes = 262_144;
