import type { Metadata, ServerUnaryCall, UntypedHandleCall } from '@grpc/grpc-js';
import {
  type Attributes,
  context,
  type Context,
  propagation,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import type { DecisionEvent, RecordProven } from './audit/event.ts';
import type { Authority } from './ca/authority.ts';
import { publicError } from './errors.ts';
import type { GrpcService } from './grpc/listener.ts';
import type { IssueX509 } from './identity/issuer.ts';
import type { SdsObserver } from './xds/observer.ts';
import { version } from './version.ts';
import { CheckRequest } from './wire/authz.ts';

// Spans go to whatever SDK the process has registered, and nowhere without one. INVARIANT: attributes are names of ours,
// values from closed sets, SPIFFE IDs, serials and counts; nothing of a header, a body, a key or a token.

const tracer = trace.getTracer('countersign', version);

/** Whether anybody may be listening: an SDK registers a propagator together with its provider. */
function isLive(): boolean {
  return propagation.fields().length > 0;
}

/**
 * A service with a span around each unary call; streams live too long for one. Its parent is the `traceparent` of the
 * call.
 * @param name of the service, as in the path of its calls
 * @param parentOf where else a parent may stand; asked only when somebody is listening
 */
export function traceCalls(
  service: GrpcService,
  name: string,
  parentOf: (request: unknown) => string | undefined = () => undefined,
): GrpcService {
  const traced = (method: string, handle: UntypedHandleCall): UntypedHandleCall => {
    const serve = handle as UnaryHandler;
    const attributes = { 'rpc.system': 'grpc', 'rpc.service': name, 'rpc.method': method };
    return ((call, callback) => {
      if (!isLive()) return serve(call, callback);
      const parent = parentFrom(call.metadata.get('traceparent')[0] ?? parentOf(call.request));
      const span = tracer.startSpan(`${name}/${method}`, { kind: SpanKind.SERVER, attributes }, parent);
      const answer: typeof callback = (error, ...rest) => {
        span.setAttribute('rpc.grpc.status_code', error?.code ?? 0);
        if (error) span.setStatus({ code: SpanStatusCode.ERROR });
        span.end();
        callback(error, ...rest);
      };
      context.with(trace.setSpan(parent, span), () => serve(call, answer));
    }) as UnaryHandler as UntypedHandleCall;
  };
  const implementation = Object.fromEntries(
    Object.entries(service.implementation).map(([key, handle]) => {
      const { requestStream = true, responseStream = true, path = '' } = service.definition[key] ?? {};
      const isUnary = !requestStream && !responseStream;
      return [key, isUnary ? traced(path.slice(path.lastIndexOf('/') + 1), handle) : handle];
    }),
  );
  return { ...service, implementation };
}

/** Work that is done later, and told to the span of now. */
export function inSpanOfNow(work: () => void): () => void {
  if (!isLive()) return work;
  const now = context.active();
  return () => context.with(now, work);
}

/** Tells the span of the check, if there is one, what was decided. */
export function traceDecision(event: TracedDecision, verdict: string, decisionId: string): void {
  if (!isLive()) return;
  const { reason } = event;
  trace.getActiveSpan()?.setAttributes({
    'countersign.verdict': verdict,
    'countersign.reason': reason,
    'countersign.decision_id': decisionId,
    'countersign.source': event.source,
    // Refused for it, it is a claim, and may be any text.
    ...(claims.has(reason) ? {} : { 'countersign.destination': event.destination }),
    'countersign.revision': event.revision,
  });
}

type TracedDecision = Pick<DecisionEvent, 'reason' | 'source' | 'destination' | 'revision'>;

/** The `traceparent` of the call that a proxy asks about. */
export function checkedTraceparent(request: unknown): string | undefined {
  if (!(request instanceof Uint8Array)) return undefined;
  try {
    return CheckRequest.decode(request).attributes?.request?.http?.headers['traceparent'];
  } catch {
    return undefined;
  }
}

/** Issuance with a span of its own; those of its steps come of {@link traceSteps}. */
export function traceIssuance(issue: IssueX509): IssueX509 {
  return (request) =>
    inSpan(
      'x509.issue',
      { 'spiffe.id': request.entry.spiffeId.text, 'countersign.entry': request.entry.id },
      async (span) => {
        const issued = await issue(request);
        span?.setAttribute('countersign.serial', issued.serial);
        return issued;
      },
    );
}

/** The steps of an issuance: what will be signed is prepared, recorded, signed. */
export function traceSteps(parts: {
  readonly authority: () => Authority;
  readonly record: RecordProven;
}): typeof parts {
  const traced = new WeakMap<Authority, Authority>();
  const wrap = (authority: Authority): Authority => ({
    ...authority,
    prepare: (...args) => inSpanNow('x509.prepare', {}, () => authority.prepare(...args)),
    sign: (...args) => inSpan('x509.sign', {}, () => authority.sign(...args)),
  });
  return {
    authority: () => {
      const authority = parts.authority();
      const known = traced.get(authority) ?? wrap(authority);
      traced.set(authority, known);
      return known;
    },
    record: (event) => inSpan('x509.record', {}, () => parts.record(event)),
  };
}

/** An observer that also makes a span of each response, from when it is sent to when it is answered, or never will be. */
export function tracePushes(observer: SdsObserver): SdsObserver {
  const open = new Map<string, Span>();
  const end = (key: string, isRefused: boolean): void => {
    const span = open.get(key);
    if (span === undefined) return;
    open.delete(key);
    if (isRefused) span.setStatus({ code: SpanStatusCode.ERROR });
    span.end();
  };
  return {
    ...observer,
    pushed: (push) => {
      observer.pushed?.(push);
      if (!isLive()) return;
      const key = keyOf(push.peer.connectionId, push.names[0]);
      end(key, false);
      const attributes: Attributes = { 'countersign.secrets': push.names.length };
      if (push.peer.kind === 'certified') attributes['spiffe.id'] = push.peer.presented.id.text;
      open.set(key, tracer.startSpan('sds.push', { kind: SpanKind.PRODUCER, attributes }, ROOT_CONTEXT));
      // Those never answered end with the oldest: a proxy may leave as many open as it likes.
      if (open.size > maxOpen) end(open.keys().next().value ?? '', false);
    },
    acknowledged: (told) => {
      observer.acknowledged?.(told);
      if (open.size > 0) end(keyOf(told.peer.connectionId, told.name), false);
    },
    closed: (peer) => {
      observer.closed?.(peer);
      // Nobody is left to answer; that another stream of the connection is cut short with it does no harm.
      for (const key of open.keys()) if (key.startsWith(keyOf(peer.connectionId))) end(key, false);
    },
    rejected: (told) => {
      observer.rejected?.(told);
      if (open.size > 0) end(keyOf(told.peer.connectionId, told.names[0]), true);
    },
  };
}

/** Begins the span of a request to the admin API. @returns ends it; undefined when nobody is listening */
export function traceRequest(
  method: string,
  route: string,
  traceparent: string | undefined,
): ((status: number) => void) | undefined {
  if (!isLive()) return undefined;
  const attributes = { 'http.request.method': method, 'http.route': route };
  const kind = SpanKind.SERVER;
  const span = tracer.startSpan(`${method} ${route}`, { kind, attributes }, parentFrom(traceparent));
  return (status) => {
    span.setAttribute('http.response.status_code', status);
    if (status >= 500) span.setStatus({ code: SpanStatusCode.ERROR });
    span.end();
  };
}

async function inSpan<T>(
  name: string,
  attributes: Attributes,
  work: (span: Span | undefined) => Promise<T>,
): Promise<T> {
  if (!isLive()) return work(undefined);
  return tracer.startActiveSpan(name, { attributes }, async (span) => {
    try {
      return await work(span);
    } catch (error) {
      throw failed(span, error);
    } finally {
      span.end();
    }
  });
}

function inSpanNow<T>(name: string, attributes: Attributes, work: () => T): T {
  if (!isLive()) return work();
  return tracer.startActiveSpan(name, { attributes }, (span) => {
    try {
      return work();
    } catch (error) {
      throw failed(span, error);
    } finally {
      span.end();
    }
  });
}

/** The code tells what went wrong; the message may quote what somebody sent. */
function failed(span: Span, error: unknown): unknown {
  span.setStatus({ code: SpanStatusCode.ERROR });
  span.setAttribute('error.type', publicError(error).code);
  return error;
}

function parentFrom(traceparent: unknown): Context {
  if (typeof traceparent !== 'string' || !/^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/.test(traceparent)) {
    return ROOT_CONTEXT;
  }
  return propagation.extract(ROOT_CONTEXT, { traceparent });
}

function keyOf(connectionId: string, name = ''): string {
  return `${connectionId} ${name}`;
}

type UnaryHandler = (
  call: ServerUnaryCall<unknown, unknown> & { readonly metadata: Metadata },
  callback: (error: { readonly code?: number } | null, ...rest: unknown[]) => void,
) => void;

const claims: ReadonlySet<string> = new Set(['caller_unknown', 'destination_forged', 'engine_failed']);
const maxOpen = 4_096;
