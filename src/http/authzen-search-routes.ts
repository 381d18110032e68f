import type { FastifyInstance } from 'fastify';
import { methodsOf, namedIn, pathsOf, type ReadNames, tokenSubjectsOf } from '../authz/named-values.ts';
import type { AppliedRules } from '../authz/snapshot.ts';
import type { Steps } from '../authz/steps.ts';
import { scopeOf } from '../identity/access.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { pageWish, planPage } from './authzen-page.ts';
import {
  identityOf,
  isWorkload,
  pathOf,
  questionBody,
  readQuestion,
  searchedEntity,
  tcpAction,
} from './authzen-question.ts';
import { type AuthzenPorts, demandDestination } from './authzen-routes.ts';
import { findAllowed, nothingFound, type SearchAnswer } from './authzen-search.ts';
import { authzenRoutes as routes } from './authzen-transport.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { namespaceOf, withinScope } from './permit.ts';
import { identitiesOf, type ReachPorts } from './reach-routes.ts';
import { addRoute } from './route.ts';

export type FoundEntity = { readonly type: string; readonly id: string };
export type FoundAction = { readonly name: string };

type Candidates = ReadonlyMap<string, { readonly text: string }>;

/** Whose answer is yes: among registered identities, and among all that the rules in question name. */
export function addAuthzenSearchRoutes(
  app: FastifyInstance,
  ports: AuthzenPorts & ReachPorts,
  trustDomain: TrustDomain,
): void {
  const { administration, survey, isBanned } = ports;
  const world = { trustDomain, namespace: ports.authzenNamespace };
  const registered = () => identitiesOf(administration.current().entries);

  addRoute(app, routes.searchSubject, async (request): Promise<SearchAnswer<FoundEntity>> => {
    const { page, ...question } = parseInput(subjectSearchBody, request.body, 'body_invalid');
    const { subject, resource } = question;
    const plan = planPage(page, ['subject', question]);
    const destination = identityOf('resource', resource, world);
    if ('why' in destination) return survey((snapshot) => nothing(nothingFound(snapshot, destination)));
    demandDestination(request, { destination }, trustDomain);
    const scope = scopeOf(callerOf(request).grants, 'entries:read');
    const isNamed = !isWorkload(subject.type);
    const source = isNamed ? identityOf('subject', subject, world) : destination;
    if ('why' in source) return survey((snapshot) => nothing(nothingFound(snapshot, source)));
    return survey(function* (snapshot, now) {
      const candidates: Candidates = isNamed
        ? yield* named(yield* snapshot.rulesFor(destination), tokenSubjectsOf(subject.type))
        : withinScope(registered(), scope, namespaceOf);
      const callOf = (id: string) => readQuestion({ ...question, subject: { ...subject, id } }, world);
      const show = (id: string) => ({ type: subject.type, id });
      return yield* findAllowed(snapshot, { candidates, callOf, isWide: false, show }, plan, isBanned, now);
    });
  });

  addRoute(app, routes.searchResource, async (request): Promise<SearchAnswer<FoundEntity>> => {
    const { page, ...question } = parseInput(resourceSearchBody, request.body, 'body_invalid');
    const { resource } = question;
    const plan = planPage(page, ['resource', question]);
    const scope = scopeOf(callerOf(request).grants, 'authz:explain');
    const isNamed = !isWorkload(resource.type);
    const destination = isNamed ? identityOf('resource', resource, world) : undefined;
    if (destination !== undefined && 'why' in destination) {
      return survey((snapshot) => nothing(nothingFound(snapshot, destination)));
    }
    if (destination !== undefined) demandDestination(request, { destination }, trustDomain);
    return survey(function* (snapshot, now) {
      const candidates: Candidates =
        destination === undefined
          ? withinScope(registered(), scope, namespaceOf)
          : yield* named(yield* snapshot.rulesFor(destination), idsOf(resource.type));
      const callOf = (id: string) => readQuestion({ ...question, resource: { ...resource, id } }, world);
      const show = (id: string) => ({ type: resource.type, id });
      return yield* findAllowed(
        snapshot,
        { candidates, callOf, isWide: !isNamed, show },
        plan,
        isBanned,
        now,
      );
    });
  });

  addRoute(app, routes.searchAction, async (request): Promise<SearchAnswer<FoundAction>> => {
    const { page, ...question } = parseInput(actionSearchBody, request.body, 'body_invalid');
    const { resource } = question;
    const plan = planPage(page, ['action', question]);
    const destination = identityOf('resource', resource, world);
    if ('why' in destination) return survey((snapshot) => nothing(nothingFound(snapshot, destination)));
    demandDestination(request, { destination }, trustDomain);
    const usual = isWorkload(resource.type) ? usualActions : [];
    return survey(function* (snapshot, now) {
      const candidates = yield* named(yield* snapshot.rulesFor(destination), methodsOf, usual);
      const callOf = (name: string) => readQuestion({ ...question, action: { name } }, world);
      const show = (name: string) => ({ name });
      return yield* findAllowed(snapshot, { candidates, callOf, isWide: false, show }, plan, isBanned, now);
    });
  });
}

// oxlint-disable-next-line require-yield -- there is nothing to do
function* nothing<T>(answer: T): Steps<T> {
  return answer;
}

function* named(rules: AppliedRules, read: ReadNames, also: readonly string[] = []): Steps<Candidates> {
  const names = yield* namedIn(rules, read);
  return new Map([...names, ...also].map((text) => [text, { text }]));
}

function idsOf(type: string): ReadNames {
  const start = pathOf(type, '');
  return (predicate) =>
    // INVARIANT: a path of a policy decodes; a canonical one could not be compared otherwise.
    pathsOf(predicate).flatMap((path) =>
      path.length > start.length && path.startsWith(start)
        ? [decodeURIComponent(path.slice(start.length))]
        : [],
    );
}

/** What is asked about besides the methods that rules name. */
const usualActions: readonly string[] = [
  ...['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE'],
  tcpAction,
];

const page = pageWish.optional();
/** The bodies of searches: what is searched for is left out, and not read where it is there. */
export const subjectSearchBody = questionBody.extend({ subject: searchedEntity, page });
export const resourceSearchBody = questionBody.extend({ resource: searchedEntity, page });
export const actionSearchBody = questionBody.omit({ action: true }).extend({ page });
