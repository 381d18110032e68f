import type { Metadata } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { type ErrorCode, MeshError, publicError } from '../errors.ts';
import { type PeerCall, peerOf } from '../grpc/connections.ts';
import { guardServerStream, guardUnary } from '../grpc/guard.ts';
import type { WatchBundles } from '../identity/bundle-watch.ts';
import type { WatchCredentials } from '../identity/credentials.ts';
import type { Entitlement } from '../identity/entitlement.ts';
import type { Attest, Attestation } from '../identity/evidence.ts';
import type { MintJwt, ValidateJwt } from '../identity/jwt-svid.ts';
import { createRefusals, type RecordRefusal } from '../identity/refusals.ts';
import { maxIdBytes } from '../spiffe/id.ts';
import type { JwtBundle } from '../spiffe/jwt-bundle.ts';
import { type SpiffeWorkloadAPIServer, SpiffeWorkloadAPIService } from '../wire/workload.ts';
import { type AdmissionLimits, createAdmission, defaultAdmissionLimits } from './admission.ts';
import { answerJwtBundles, answerX509Bundles, answerX509Svid, holdsAll } from './answer.ts';
import { type Asked, type Cargo, carry, type CarryLimits } from './carry.ts';
import { demandSecurityHeader } from './header.ts';
import { mintTokens, validateToken } from './tokens.ts';
import type { WorkloadApiObserver, WorkloadCall } from './observer.ts';

export type WorkloadApiLimits = AdmissionLimits & CarryLimits;

export const defaultWorkloadApiLimits: WorkloadApiLimits = {
  ...defaultAdmissionLimits,
  firstMs: 10_000,
  writeMs: 10_000,
};

export type WorkloadApiOptions = {
  readonly attest: Attest;
  readonly watch: WatchCredentials;
  readonly watchBundles: WatchBundles;
  /** What a caller may have now. */
  readonly entitled: (attestation: Attestation) => Entitlement;
  readonly mintJwt: MintJwt;
  readonly validateJwt: ValidateJwt;
  /** A bundle as a JWKS document. */
  readonly writeJwtBundle: (bundle: JwtBundle) => string;
  readonly recordRefusal: RecordRefusal;
  readonly clock: Clock;
  readonly observer?: WorkloadApiObserver;
  /** Told of failures of ours, which the caller only sees as `internal`. */
  readonly report?: (error: unknown) => void;
  readonly limits?: Partial<WorkloadApiLimits>;
};

/** The SPIFFE Workload API, to be handed to a listener. */
export type WorkloadApi = {
  readonly definition: typeof SpiffeWorkloadAPIService;
  readonly implementation: SpiffeWorkloadAPIServer;
  /** Ends every stream with UNAVAILABLE, and turns new calls away with it. */
  readonly close: () => void;
};

/**
 * Serves the X509-SVID and JWT-SVID profiles of the SPIFFE Workload API. Who calls is told by the connection alone. A
 * caller without an identity is refused, and asks again; a stream of one that loses its identity, or its default one to
 * a ban, ends the same way.
 *
 * Calls fail with `message_invalid` (no security header), `attestation_failed`, `identity_none`, `identity_banned`,
 * `rate_limited`, `stream_limit`, `stream_stalled`, `credentials_pending`, `shutting_down`, and those for tokens also
 * with what is wrong with an audience, an ID or a token. Refusals of callers are recorded; tokens that do not validate
 * are an answer, and are not.
 * @see SPIFFE Workload API
 */
export function createWorkloadApi(options: WorkloadApiOptions): WorkloadApi {
  const { attest, clock, observer = {}, report = () => undefined } = options;
  const limits = { ...defaultWorkloadApiLimits, ...options.limits };
  const admission = createAdmission(limits, clock);
  const refusals = createRefusals(options.recordRefusal, clock, undefined, 'workload_api');
  const closing = new AbortController();
  // Bundles are no secrets.
  const bundleCargo = { watch: options.watchBundles, mayHave: () => true };
  const carryParts = { attest, clock, observer, limits, closing: closing.signal };

  const streaming = <State, Response>(call: WorkloadCall, cargo: Cargo<State, Response>) =>
    guardServerStream<unknown, Response>(
      (stream, signal) =>
        admit(call, stream, async (asked) => {
          await admission.stream(asked.peer, async () => {
            observer.opened?.(call, asked.peer);
            try {
              await carry(stream, asked, signal, cargo, carryParts);
            } finally {
              observer.closed?.(call, asked.peer);
            }
          });
        }),
      { report },
    );
  const unary = <Request, Response>(
    call: WorkloadCall,
    kind: 'mints' | 'validations',
    answer: (request: Request, asked: Asked) => Promise<Response>,
  ) =>
    guardUnary<Request, Response>(
      (one, signal) =>
        admit(call, one, async (asked) => {
          admission.spend(kind, asked.peer);
          return admission.unary(asked.peer, async () => {
            demandWaiting(signal);
            asked.attestation = await attest(asked.peer);
            const response = await answer(one.request, asked);
            observer.answered?.(call);
            return response;
          });
        }),
      { report },
    );

  async function admit<T>(
    call: WorkloadCall,
    one: PeerCall & { readonly metadata: Metadata },
    work: (asked: Asked) => Promise<T>,
  ): Promise<T> {
    const asked: Asked = { call, peer: peerOf(one), attestation: undefined, resource: '' };
    try {
      if (closing.signal.aborted) throw new MeshError('shutting_down', 'the service is shutting down');
      demandSecurityHeader(one.metadata);
      return await work(asked);
    } catch (error) {
      observer.failed?.(call, publicError(error).code);
      record(asked, error);
      throw error;
    }
  }

  function record({ call, peer, attestation, resource }: Asked, error: unknown): void {
    const { code, message } = publicError(error);
    if (unrecorded.has(code) || (call === 'validate_jwt_svid' && code.startsWith('jwt_'))) return;
    refusals.add({
      code,
      message,
      resource: Buffer.byteLength(resource) > maxIdBytes ? '' : resource,
      selectors: attestation?.selectors.map(({ text }) => text) ?? [],
      caller: { pid: peer.pid, uid: peer.uid, gid: peer.gid },
    });
  }

  return {
    definition: SpiffeWorkloadAPIService,
    // What is not here, such as the WIT-SVID profile, grpc-js answers with UNIMPLEMENTED.
    implementation: {
      fetchX509Svid: streaming('x509_svid', {
        watch: options.watch,
        answer: answerX509Svid,
        mayHave: (attestation, { svids }) => holdsAll(svids, options.entitled(attestation)),
      }),
      fetchX509Bundles: streaming('x509_bundles', { ...bundleCargo, answer: answerX509Bundles }),
      fetchJwtBundles: streaming('jwt_bundles', {
        ...bundleCargo,
        answer: answerJwtBundles(options.writeJwtBundle),
      }),
      fetchJwtsvid: unary(
        'jwt_svid',
        'mints',
        mintTokens(options, ({ peer }) => admission.spend('mints', peer)),
      ),
      validateJwtsvid: unary('validate_jwt_svid', 'validations', validateToken(options)),
    },
    close: () => {
      closing.abort();
      refusals.close();
    },
  };
}

/** Work for a caller that has given up is not begun. */
function demandWaiting(signal: AbortSignal): void {
  if (signal.aborted) throw new MeshError('shutting_down', 'the caller has given up');
}

// No refusals of anybody: what is our own trouble, or the end.
const unrecorded: ReadonlySet<ErrorCode> = new Set([
  'store_unavailable',
  'shutting_down',
  'credentials_pending',
  'internal',
]);
