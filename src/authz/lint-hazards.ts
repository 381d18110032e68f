import { kubernetesNames, SpiffeId } from '../spiffe/id.ts';
import { MeshError } from '../errors.ts';
import {
  callerAttributes,
  demandsCaller,
  ofRule,
  predicatesOf,
  type Spot,
  where,
  whereValue,
  whole,
} from './differences.ts';
import { type Attribute, isHttpOnly } from './document.ts';
import type { LintWorld } from './lint-world.ts';
import { type Policy, type Predicate, type Rule, sides } from './policy.ts';

/** Something in policies that is worth a look. */
export type LintRule = {
  /** Stable. */
  readonly code: string;
  readonly severity: 'error' | 'warning' | 'note';
  /** One sentence: lower case, no full stop. */
  readonly why: string;
  readonly fix: string;
  readonly find: (policy: Policy, world: LintWorld) => readonly Spot[];
};

/** What is easily got wrong, or misused by whoever calls; whatever the workloads are. */
export const hazards: readonly LintRule[] = [
  {
    code: 'allow_not_methods',
    severity: 'warning',
    why: 'notMethods of an ALLOW rule admits every other method, invented ones too',
    fix: 'list the methods that are meant under methods',
    find: (policy) => negatedAlone(policy, (attribute) => attribute === 'request.method'),
  },
  {
    code: 'allow_not',
    severity: 'warning',
    why: 'a not field of an ALLOW rule admits whatever is not listed, now and later',
    fix: 'list what is meant, or deny what is not with a DENY policy',
    find: (policy) =>
      negatedAlone(
        policy,
        (attribute) => attribute !== 'request.method' && attribute !== 'request.auth.principal',
      ),
  },
  {
    code: 'deny_tcp',
    severity: 'warning',
    why: 'on a TCP connection, which has no HTTP fields, this rule matches whatever comes',
    fix: 'add ports to the rule, so that it is about HTTP ports alone',
    find: ({ action, rules }) =>
      action === 'ALLOW' ? [] : rules.filter((rule) => hasHttp(rule) && !namesPort(rule)).map(ofRule),
  },
  {
    code: 'anonymous_token',
    severity: 'warning',
    why: 'a call without a token is one of those that notRequestPrincipals is about',
    fix: "if a token is meant to be there, deny notRequestPrincipals: ['*'] and allow by requestPrincipals",
    find: (policy) =>
      where(
        policy,
        ({ attribute, negated, values }) =>
          attribute === 'request.auth.principal' &&
          negated &&
          (policy.action === 'ALLOW' || !values.includes('*')),
      ),
  },
  {
    code: 'sni_alone',
    severity: 'warning',
    why: 'whoever calls chooses what TLS asks for, and nothing else says here who may call',
    fix: 'name callers by principals, namespaces or serviceAccounts as well',
    find: ({ action, rules }) =>
      action !== 'ALLOW'
        ? []
        : rules
            .filter((rule) => !demandsCaller(rule))
            .flatMap((rule) => predicatesOf(rule).filter(({ attribute }) => attribute === 'connection.sni')),
  },
  {
    code: 'header_identity',
    severity: 'warning',
    why: 'whoever calls can send this header, unless every proxy on the way removes it',
    fix: 'use principals for who calls, and ipBlocks for where from',
    find: (policy) =>
      where(
        policy,
        ({ attribute, names: [name = ''] }) => attribute === 'request.headers' && sendable.test(name),
      ),
  },
  {
    code: 'namespace_wildcard',
    severity: 'warning',
    why: 'namespaces that are made later are meant as well, by whoever may make one',
    fix: 'list the namespaces',
    find: (policy) =>
      whereValue(
        policy,
        ({ attribute, negated }) => attribute === 'source.namespace' && !negated,
        (value) => value.includes('*'),
      ),
  },
  {
    code: 'default_account',
    severity: 'warning',
    why: 'every workload of a namespace that has no service account of its own is default',
    fix: 'give the caller a service account of its own, and name that',
    find: (policy) => [
      ...whereValue(
        policy,
        ({ attribute, negated }) => attribute === 'source.principal' && !negated,
        (value) => value.endsWith('/sa/default'),
      ),
      ...whereValue(
        policy,
        ({ attribute, negated }) => attribute === 'source.serviceAccount' && !negated,
        (value) => /^(?:.*\/)?default$/.test(value),
      ),
    ],
  },
  {
    code: 'method_case',
    severity: 'warning',
    why: 'methods are compared with their letter case, and those of HTTP are upper case',
    fix: 'write it as in GET',
    find: (policy) =>
      whereValue(
        policy,
        ({ attribute }) => attribute === 'request.method',
        (value) => !standardMethods.has(value) && standardMethods.has(value.toUpperCase()),
      ),
  },
  {
    code: 'allow_nothing',
    severity: 'warning',
    why: 'an ALLOW policy without rules allows nothing',
    fix: 'add rules; or keep it if it is there to deny, which Istio mode needs and strict mode does without',
    find: (policy) => (policy.action === 'ALLOW' && policy.rules.length === 0 ? [whole(policy)] : []),
  },
];

/** What does not fit the workloads that there are; nothing of it is said when nobody knows those. */
export const misfits: readonly LintRule[] = [
  {
    code: 'selects_nothing',
    severity: 'warning',
    why: 'the policy applies to no registered workload',
    fix: 'compare its namespace and selector with countersign entry list',
    find: (policy, { inventory, rootNamespace }) => {
      if (inventory === null || inventory.isChosen(policy)) return [];
      const isWaiting = policy.namespace === rootNamespace && policy.selector.size === 0;
      return isWaiting && policy.targetRefs.length === 0 ? [] : [whole(policy)];
    },
  },
  {
    code: 'principal_unknown',
    severity: 'warning',
    why: 'no registered workload has this identity',
    fix: 'compare it with countersign entry list',
    find: (policy, { inventory, trustDomain }) => {
      if (inventory === null) return [];
      const isUnknown = (value: string): boolean => {
        const id = idOf(value);
        if (id === undefined || trustDomain === null || !id.memberOf(trustDomain)) return false;
        return !inventory.principals.has(value);
      };
      return whereValue(policy, ({ attribute }) => attribute === 'source.principal', isUnknown);
    },
  },
  {
    code: 'account_unknown',
    severity: 'warning',
    why: 'no registered workload has this service account',
    fix: 'compare it with countersign entry list',
    find: (policy, { inventory }) =>
      inventory === null
        ? []
        : whereValue(
            policy,
            ({ attribute }) => attribute === 'source.serviceAccount',
            (value) => !inventory.accounts.has(value.includes('/') ? value : `${policy.namespace}/${value}`),
          ),
  },
  {
    code: 'namespace_unknown',
    severity: 'warning',
    why: 'no registered workload is in this namespace',
    fix: 'compare it with countersign entry list',
    find: (policy, { inventory }) =>
      inventory === null
        ? []
        : whereValue(
            policy,
            ({ attribute }) => attribute === 'source.namespace',
            (value) => !value.includes('*') && !inventory.namespaces.has(value),
          ),
  },
];

/** A not field without a list of what is meant beside it, in ALLOW rules. */
function negatedAlone(
  { action, rules }: Policy,
  isMeant: (attribute: Attribute) => boolean,
): readonly Predicate[] {
  if (action !== 'ALLOW') return [];
  return rules.flatMap((rule) =>
    sides.flatMap((side) =>
      rule[side].flatMap(({ predicates }) => {
        const listed = new Set(predicates.filter(({ negated }) => !negated).map(keyOf));
        const named = predicates.some(
          ({ attribute, negated }) => !negated && callerAttributes.has(attribute),
        );
        return predicates.filter((one) => {
          if (!one.negated || !isMeant(one.attribute) || listed.has(keyOf(one))) return false;
          // Who calls is listed, by another field.
          return !(named && callerAttributes.has(one.attribute));
        });
      }),
    ),
  );
}

function keyOf({ attribute, names }: Predicate): string {
  return JSON.stringify([attribute, names]);
}

function hasHttp(rule: Rule): boolean {
  return predicatesOf(rule).some(({ attribute }) => isHttpOnly(attribute));
}

/** Every way in which it matches is about some port. */
function namesPort({ to, when }: Rule): boolean {
  const says = ({ predicates }: Rule['to'][number]): boolean =>
    predicates.some(({ attribute, negated }) => attribute === 'destination.port' && !negated);
  return when.some(says) || (to.length > 0 && to.every(says));
}

function idOf(value: string): SpiffeId | undefined {
  if (value.includes('*')) return undefined;
  try {
    const id = SpiffeId.parseWorkload(`spiffe://${value}`);
    return kubernetesNames(id) === undefined ? undefined : id;
  } catch (error) {
    if (error instanceof MeshError) return undefined;
    throw error;
  }
}

/** Headers that proxies and applications take for who calls or where from, and that anybody can send. */
const sendable =
  /^(?:x-forwarded-.*|forwarded|via|x-real-ip|true-client-ip|cf-connecting-ip|x-client-ip|x-cluster-client-ip|x-envoy-.*|x-original-.*|x-rewrite-url|x-http-method-override|x-remote-user|remote-user|x-auth-.*|x-user.*)$/;
const standardMethods: ReadonlySet<string> = new Set([
  'GET',
  'HEAD',
  'POST',
  'PUT',
  'DELETE',
  'OPTIONS',
  'TRACE',
  'PATCH',
]);
