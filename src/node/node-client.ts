import { createPrivateKey } from 'node:crypto';
import type { Socket } from 'node:net';
import {
  type CallOptions,
  type ChannelCredentials,
  connectivityState,
  credentials,
  type ClientDuplexStream,
  type ClientReadableStream,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { type ErrorCode, errorKinds, MeshError } from '../errors.ts';
import { codeMetadataKey, plainDetails, statusOf } from '../grpc/status.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { encodePem } from '../spiffe/pem.ts';
import {
  AttestationClient,
  type AttestRequest,
  type AttestResponse,
  type NodeCertificate,
  NodeClient,
  type ViewUpdate,
} from '../wire/node.ts';
import { answerChallenge } from './challenge.ts';
import { makeCertificateRequest } from './certificate-request.ts';
import { rolloutCapability } from './rollout-wire.ts';
import { rootsPem, type ServerAddress, whyUntrusted } from './server-trust.ts';

/** The certificate of a node with its key. */
export type NodeIdentity = {
  /** DER, leaf first. */
  readonly certificates: readonly Uint8Array[];
  /** PKCS #8, DER. Never logged. */
  readonly privateKey: Uint8Array;
};

/** What an agent shows of its machine. */
export type Evidence =
  | {
      readonly kind: 'k8s_psat';
      readonly cluster: string;
      /** A projected service account token. */
      readonly token: string;
    }
  | { readonly kind: 'join_token'; readonly secret: string }
  | {
      readonly kind: 'x509pop';
      /** DER, the machine's own first. */
      readonly certificates: readonly Uint8Array[];
      /** PKCS #8, DER. */
      readonly privateKey: Uint8Array;
    };

export type ChannelOptions = {
  readonly server: ServerAddress;
  /** CA certificates, DER. */
  readonly roots: readonly Uint8Array[];
  readonly trustDomain: TrustDomain;
};

/** How long an agent waits before it takes a connection for dead, in ms. */
export type LinkTimes = {
  /** From the start of a connection to the end of its handshakes. */
  readonly connectMs: number;
  /** To the first view, which may be large. Silence later on is found by pings. */
  readonly firstViewMs: number;
};

export const defaultLinkTimes: LinkTimes = { connectMs: 10_000, firstViewMs: 60_000 };

/**
 * Opens a channel for the node API. It connects when it is used, and again when it was cut. `close` cuts connections
 * whose handshake has not come to an end, too.
 */
export function openNodeChannel(options: ChannelOptions, identity: NodeIdentity): NodeClient {
  const { ssl, destroy } = sslOf(options, identity);
  const client = new NodeClient(targetOf(options), ssl, channelOptions);
  const close = client.close.bind(client);
  client.close = () => {
    close();
    destroy();
  };
  return client;
}

/**
 * Attests this machine: shows the evidence, answers a challenge, and is given a certificate.
 * @param key for the certificate, SPKI and PKCS #8, DER
 * @param signal ends it before its time
 * @throws MeshError `server_unreachable`, or what the server refuses with
 */
export async function attestNode(
  options: ChannelOptions,
  evidence: Evidence,
  key: { readonly publicKey: Uint8Array; readonly privateKey: Uint8Array },
  signal?: AbortSignal,
): Promise<NodeCertificate> {
  const { ssl, destroy } = sslOf(options, null);
  const client = new AttestationClient(targetOf(options), ssl, channelOptions);
  let forget = (): void => undefined;
  try {
    const call = client.attest({ deadline: Date.now() + callMs } as never) as Conversation;
    forget = cancelOn(signal, call);
    const csr = Buffer.from(makeCertificateRequest(key.publicKey, key.privateKey));
    call.write({ step: { $case: 'evidence', evidence: { csr, kind: kindOf(evidence) } } });
    for await (const { step } of call as AsyncIterable<AttestResponse>) {
      if (step?.$case === 'certificate') return step.certificate;
      if (step?.$case !== 'challenge' || evidence.kind !== 'x509pop') break;
      const machineKey = createPrivateKey({
        key: Buffer.from(evidence.privateKey),
        format: 'der',
        type: 'pkcs8',
      });
      const answer = answerChallenge(machineKey, { nonce: step.challenge, csr });
      call.write({ step: { $case: 'challengeAnswer', challengeAnswer: Buffer.from(answer) } });
    }
    throw new MeshError('message_invalid', 'the server gave no certificate');
  } catch (error) {
    throw failureOf(error);
  } finally {
    forget();
    client.close();
    destroy();
  }
}

/**
 * The updates of the view, until it fails or the signal aborts.
 * @param about what the server is told: `policyNumber` is that of the policy revision in force, 0 for none
 * @throws MeshError; `server_unreachable` also when nothing comes in time
 */
export async function* watchView(
  client: NodeClient,
  about: {
    readonly agentVersion: string;
    readonly policyNumber: number;
    readonly capabilities?: readonly string[];
  },
  signal: AbortSignal,
  { connectMs, firstViewMs } = defaultLinkTimes,
): AsyncGenerator<ViewUpdate> {
  const call: ClientReadableStream<ViewUpdate> = client.watchView({
    agentVersion: about.agentVersion,
    policyNumber: BigInt(about.policyNumber),
    capabilities: [...(about.capabilities ?? [rolloutCapability])],
  });
  const cancel = () => call.cancel();
  signal.addEventListener('abort', cancel, { once: true });
  // A channel waits for ever for a peer that takes the connection and says nothing.
  const connecting = setTimeout(() => {
    if (!isConnected(client)) cancel();
  }, connectMs);
  const waiting = setTimeout(cancel, firstViewMs);
  try {
    for await (const update of call as AsyncIterable<ViewUpdate>) {
      clearTimeout(connecting);
      clearTimeout(waiting);
      yield update;
    }
  } catch (error) {
    if (!signal.aborted) throw failureOf(error);
  } finally {
    clearTimeout(connecting);
    clearTimeout(waiting);
    signal.removeEventListener('abort', cancel);
    call.cancel();
  }
}

/**
 * A unary call with a deadline; failures as MeshErrors.
 * @param signal ends it before its time: whoever stops does not wait for a server that says nothing
 * @throws MeshError
 */
export function ask<Response>(call: UnaryCall<Response>, signal?: AbortSignal): Promise<Response> {
  return new Promise((resolve, reject) => {
    const made = call(new Metadata(), { deadline: Date.now() + callMs }, (error, response) => {
      forget();
      if (error === null) resolve(response);
      else reject(failureOf(error));
    });
    const forget = cancelOn(signal, made);
  });
}

/** Cancels a call, now or when the signal aborts. @returns what forgets the call when it is over */
export function cancelOn(signal: AbortSignal | undefined, call: { readonly cancel: () => void }): () => void {
  const cancel = () => call.cancel();
  if (signal?.aborted === true) cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  return () => signal?.removeEventListener('abort', cancel);
}

type UnaryCall<Response> = (
  metadata: Metadata,
  options: Partial<CallOptions>,
  done: (error: ServiceError | null, response: Response) => void,
) => { readonly cancel: () => void };

/** A failed call as an error of ours: the code that the server gave, if it gave one. */
export function failureOf(error: unknown): MeshError {
  if (error instanceof MeshError) return error;
  const { code, details, metadata } = error as Partial<ServiceError>;
  const [own] = metadata?.get(codeMetadataKey) ?? [];
  const known = typeof own === 'string' && Object.hasOwn(errorKinds, own) ? (own as ErrorCode) : undefined;
  if (known !== undefined && code === statusOf(errorKinds[known])) {
    return new MeshError(known, details ?? 'the server refused', {
      ...(/join token/.test(details ?? '') ? { fix: joinFix } : {}),
      cause: error,
    });
  }
  const reason = plainDetails(details ?? 'unknown');
  return new MeshError('server_unreachable', `the server cannot be reached: ${reason}`, {
    fix: /certificate/i.test(reason)
      ? 'check that it is the server, and both clocks; where every root was replaced meanwhile, the node has to join anew'
      : 'check its address, that it runs, and the network between',
    cause: error,
  });
}

/** Whether a connection stands, and calls may be under way on it. */
export function isConnected(client: NodeClient): boolean {
  return client.getChannel().getConnectivityState(false) === connectivityState.READY;
}

/** Whether the last attempt to connect came to nothing, so that calls fail at once. */
export function hasFailed(client: NodeClient): boolean {
  return client.getChannel().getConnectivityState(false) === connectivityState.TRANSIENT_FAILURE;
}

type Conversation = ClientDuplexStream<AttestRequest, AttestResponse>;

function kindOf(
  evidence: Evidence,
): NonNullable<Extract<AttestRequest['step'], { $case: 'evidence' }>>['evidence']['kind'] {
  if (evidence.kind === 'join_token') return { $case: 'joinToken', joinToken: { secret: evidence.secret } };
  if (evidence.kind === 'k8s_psat') {
    return { $case: 'kubernetes', kubernetes: { cluster: evidence.cluster, token: evidence.token } };
  }
  const certificates = evidence.certificates.map((der) => Buffer.from(der));
  return { $case: 'x509pop', x509pop: { certificates } };
}

function targetOf({ server: { host, port } }: ChannelOptions): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The credentials of a channel, and what cuts every connection that was made with them. */
function sslOf(
  { roots, trustDomain }: ChannelOptions,
  identity: NodeIdentity | null,
): { readonly ssl: ChannelCredentials; readonly destroy: () => void } {
  const own =
    identity === null
      ? [null, null]
      : [
          Buffer.from(encodePem('PRIVATE KEY', identity.privateKey)),
          Buffer.from(identity.certificates.map((der) => encodePem('CERTIFICATE', der)).join('')),
        ];
  const ssl = credentials.createSsl(Buffer.from(rootsPem(roots)), own[0] ?? null, own[1] ?? null, {
    // TLS has verified the chain by now; the name is ours to judge, and it is no host name.
    checkServerIdentity: (_host, certificate) => {
      const why = whyUntrusted(chainOf(certificate), roots, new Date(), trustDomain);
      return why === undefined ? undefined : new Error(why);
    },
  });
  const sockets = new Set<Socket>();
  let isOver = false;
  const createConnector = ssl._createSecureConnector.bind(ssl);
  ssl._createSecureConnector = (...given) => {
    const connector = createConnector(...given);
    return {
      waitForReady: () => (isOver ? closed() : connector.waitForReady()),
      getCallCredentials: () => connector.getCallCredentials(),
      destroy: () => connector.destroy(),
      connect: (socket) => {
        // Whoever calls destroys the socket then.
        if (isOver) return closed();
        sockets.add(socket);
        socket.once('close', () => sockets.delete(socket));
        return connector.connect(socket);
      },
    };
  };
  return {
    ssl,
    // grpc-js closes no connection whose handshake is under way, and a closed channel that had failed to connect does so
    // again after its back-off: an agent would be back with a connection for each attempt it made during an outage.
    destroy: () => {
      isOver = true;
      for (const socket of sockets) socket.destroy();
    },
  };
}

function closed(): Promise<never> {
  return Promise.reject(new Error('closed'));
}

type Shown = { readonly raw: Buffer; readonly issuerCertificate?: Shown };

function chainOf(certificate: Shown): readonly Uint8Array[] {
  const chain: Uint8Array[] = [];
  for (let next: Shown | undefined = certificate; next !== undefined && chain.length < 5;) {
    chain.push(new Uint8Array(next.raw));
    next = next.issuerCertificate === next ? undefined : next.issuerCertificate;
  }
  return chain;
}

const callMs = 15_000;
const channelOptions = {
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5_000,
  'grpc.keepalive_permit_without_calls': 1,
  // Whoever opens channels decides when it is tried again: a channel that did by itself, too, would hammer on the server.
  'grpc.initial_reconnect_backoff_ms': 10_000,
  'grpc.max_reconnect_backoff_ms': 10_000,
  'grpc.max_receive_message_length': 67_108_864,
  'grpc.enable_retries': 0,
  'grpc.enable_channelz': 0,
  // No host name is checked; an address would be none that TLS can name.
  'grpc.ssl_target_name_override': 'countersign',
  // Another certificate makes another channel, and the connection of the old one goes with it.
  'grpc.use_local_subchannel_pool': 1,
};

const joinFix = 'make another one on the server: countersign node token create';
