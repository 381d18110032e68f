import { z } from 'zod';
import type { CallContext } from '../authz/context.ts';
import type { AuthzRequest } from '../authz/decision.ts';
import { ambiguous, malformed, type Rejection } from '../authz/rejection.ts';
import { canonicalizeHttp, canonicalizeTcp, isRejection } from '../authz/request.ts';
import { publicError, quote } from '../errors.ts';
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { callContextBody, isShort, readCallContext, tooLong } from './call-context.ts';
import { describeFirst } from './input.ts';
import { unknownHost } from './unknown-host.ts';

const properties = z.record(z.string().max(256), z.unknown()).refine(isShort, tooLong);
const typed = z.object({ type: z.string().max(256), properties: properties.optional() });
const entity = typed.extend({ id: z.string().max(8_192) });
const action = z.object({ name: z.string().max(256), properties: properties.optional() });

/** The parts of a question. Open, as AuthZEN wants it: what it does not know it passes over. */
export const questionParts = { subject: entity, action, resource: entity, context: properties };
/** A subject or resource that is searched for: an id that it has is not read. */
export const searchedEntity = typed;
/** Of `POST /access/v1/evaluation`. */
export const questionBody = z.object({ ...questionParts, context: properties.optional() });
export type Question = z.output<typeof questionBody>;
type Entity = z.output<typeof entity>;

/** Where types of AuthZEN lead to. */
export type AuthzenWorld = {
  readonly trustDomain: TrustDomain;
  /** Of the policies for all that is no workload; null: nothing else is known. */
  readonly namespace: string | null;
};

/** Why a question is no call; the answer to it is no. */
export type Refusal = { readonly reason: 'type_unknown' | Rejection['reason']; readonly why: string };

/** A question as a call. */
export type AuthzenCall = {
  readonly source: SpiffeId;
  readonly destination: SpiffeId;
  readonly request: AuthzRequest | Rejection;
};

/**
 * The call that a question is about. A workload is itself. Anything else is read into the namespace of `world`: a subject
 * as the workload of its type that shows a token (`iss` the type, `sub` the id, its properties further claims), a resource
 * as the path of its type and id at the workload of its type. docs/authzen.md says it at length.
 */
export function readQuestion(question: Question, world: AuthzenWorld): AuthzenCall | Refusal {
  const source = identityOf('subject', question.subject, world);
  if ('why' in source) return source;
  const destination = identityOf('resource', question.resource, world);
  if ('why' in destination) return destination;
  return { source, destination, request: requestOf(question, source, destination) };
}

/** Whether a type means identities of workloads, as who calls and as who is called. */
export function isWorkload(type: string): boolean {
  return workloadTypes.has(type);
}

/** The workload that an entity is, or whose part it is. An entity that is searched for has an id of any kind. */
export function identityOf(
  part: 'subject' | 'resource',
  { type, id = '' }: Pick<Entity, 'type'> & Partial<Pick<Entity, 'id'>>,
  { trustDomain, namespace }: AuthzenWorld,
): SpiffeId | Refusal {
  if (isWorkload(type)) {
    try {
      return SpiffeId.parseWorkload(id);
    } catch (error) {
      return malformed(`the ${part} is no workload: ${publicError(error).message}`);
    }
  }
  if (namespace !== null && typePattern.test(type)) {
    return SpiffeId.parse(`spiffe://${trustDomain.name}/ns/${namespace}/sa/${type}`);
  }
  return { reason: 'type_unknown', why: `the type ${quote(type)} of the ${part} is not known here` };
}

const workloadTypes: ReadonlySet<string> = new Set(['workload', 'spiffe']);
const typePattern = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/;

function requestOf(question: Question, source: SpiffeId, destination: SpiffeId): AuthzenCall['request'] {
  const { subject, action: what, resource } = question;
  const context = readContext(question);
  if ('why' in context) return context;
  const target = isWorkload(resource.type) ? ofWorkload(resource) : ofEntity(resource);
  if ('why' in target) return target;
  if (what.name !== tcpAction) {
    const { path, port, host = unknownHost } = target;
    const parts = { source, destination, method: what.name, path, port, context };
    const request = canonicalizeHttp({ ...parts, authority: host });
    // A record has no host. That of a call to a workload is not known until it is told: a DENY about hosts holds.
    const isUntold = target.host === undefined && isWorkload(resource.type);
    return isRejection(request) || !isUntold ? request : { ...request, host: '' };
  }
  if (!isWorkload(resource.type) || !isWorkload(subject.type)) {
    return malformed(`the action ${tcpAction} is one of workloads on workloads`);
  }
  return canonicalizeTcp({ source, destination, port: target.port, context });
}

/** The action of opening a TCP connection: no HTTP method has a colon. */
export const tcpAction = 'tcp:connect';

type Target = { readonly path: string; readonly host: string | undefined; readonly port: number };

function ofWorkload({ properties: said = {} }: Entity): Target | Rejection {
  const { path = '', host, port = 0 } = said;
  if (typeof path !== 'string') return malformed('the path is no text');
  if (host !== undefined && typeof host !== 'string') return malformed('the host is no text');
  if (typeof port !== 'number') return malformed('the port is no number');
  return { path, host, port };
}

/** Two ids have one path only where they are the same: what decoders could join is refused with the path. */
function ofEntity({ type, id }: Entity): Target | Rejection {
  if (id === '' || !id.isWellFormed()) return malformed("the resource's id is empty or no text");
  return { path: pathOf(type, id), host: undefined, port: 0 };
}

/** The path that policies know a resource by: `/<type>/<id>`. */
export function pathOf(type: string, id: string): string {
  return `/${type}/${id.split('/').map(encodeURIComponent).join('/')}`;
}

function readContext({ subject, resource, action: what, context = {} }: Question): CallContext | Rejection {
  const read = openContext.safeParse(context);
  if (!read.success) return malformed(`the context is not valid: ${describeFirst(read.error)}`);
  const told = readCallContext(read.data);
  const metadata = new Map<string, ReadonlyMap<string, unknown>>([
    ...(told.metadata ?? []),
    ['envoy.filters.authzen.resource', new Told(resource.properties)],
    ['envoy.filters.authzen.action', new Told(what.properties)],
  ]);
  if (isWorkload(subject.type)) return { ...told, metadata };
  const claims = claimsOf(subject);
  if ('why' in claims) return claims;
  if (told.claims !== undefined) return ambiguous('the subject is a token, and the context has another');
  return { ...told, metadata, claims };
}

const openContext = callContextBody.strip();

function claimsOf({ type, id, properties: said = {} }: Entity): ReadonlyMap<string, unknown> | Rejection {
  if (id === '' || !id.isWellFormed()) return malformed("the subject's id is empty or no text");
  // `requestPrincipals` are divided at the last slash: a DENY that names such an id would never match.
  if (id.includes('/')) return ambiguous("the subject's id has a slash");
  if (Object.hasOwn(said, 'iss') || Object.hasOwn(said, 'sub')) {
    return ambiguous('the subject has a property iss or sub, which its type and id are');
  }
  return new Map([...new Told(said), ['iss', type], ['sub', id]]);
}

/**
 * The properties of an entity. They are all there are: one that is not told is known to be missing, as a claim that a token
 * does not have. Policies compare text, so that numbers and truth values become it.
 */
class Told extends Map<string, unknown> {
  constructor(said: Readonly<Record<string, unknown>> = {}) {
    super(Object.entries(said).map(([name, value]) => [name, comparable(value)]));
  }

  override get(name: string): unknown {
    return super.get(name) ?? [];
  }
}

function comparable(value: unknown): unknown {
  if (Array.isArray(value)) return value.map((one) => (Array.isArray(one) ? one : comparable(one)));
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : value;
}
