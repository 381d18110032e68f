import type { CallContext } from '../../src/authz/context.ts';

/** Policies for one destination that differ in some things and share the others, and calls to it. */
export type Workload = {
  readonly name: string;
  readonly policy: (i: number) => { readonly action?: 'DENY'; readonly rule: object };
  /** A call that the i-th policy allows, or none. */
  readonly call: (i: number, kind: 'hit' | 'miss') => Call;
};

type Call = {
  readonly caller?: string;
  readonly method?: string;
  readonly path?: string;
  readonly host?: string;
  readonly port?: number;
  readonly context?: Partial<CallContext>;
};

/** The first is the common case: callers, methods and paths of their own, beside a few DENY policies for everybody. */
export const workloads: readonly [Workload, ...Workload[]] = [
  {
    name: 'own callers and paths',
    policy: (i) =>
      i % 10 === 9
        ? { action: 'DENY', rule: to({ paths: [`/internal/${i}/*`], methods: ['POST', 'PUT'] }) }
        : {
            rule: {
              ...from({ principals: [principal(i)] }),
              ...to({ methods: ['GET', 'POST'], paths: [`/v1/accounts/${i}`, `/v1/orders/${i}/*`] }),
            },
          },
    call: (i, kind) => ({
      caller: `svc-${i}`,
      method: used(kind, 'GET'),
      path: `/v1/orders/${i}/items?page=2`,
    }),
  },
  {
    name: 'one path, own callers',
    policy: (i) => ({ rule: { ...from({ principals: [principal(i)] }), ...to({ paths: ['/v1/pay'] }) } }),
    call: (i, kind) => ({ caller: `svc-${i}`, path: used(kind, '/v1/pay', '/v1/paid') }),
  },
  {
    name: 'one caller, one prefix, own segments',
    policy: (i) => ({ rule: { ...web, ...to({ methods: ['GET'], paths: [`/v1/tenant-${i}/*`] }) } }),
    call: (i, kind) => ({ method: used(kind, 'GET'), path: `/v1/tenant-${i}/orders` }),
  },
  {
    name: 'one caller, one prefix, own methods, ports and hosts',
    policy: (i) => ({
      rule: {
        ...web,
        ...to({
          paths: ['/v1/*'],
          methods: [methods[i % 10]],
          ports: [String(8_000 + (Math.floor(i / 10) % 10))],
          hosts: [`h${Math.floor(i / 100)}.pay:8080`],
        }),
      },
    }),
    call: (i, kind) => ({
      path: '/v1/orders',
      method: methods[i % 10] ?? '',
      port: used(kind, 8_000 + (Math.floor(i / 10) % 10), 9_000),
      host: `h${Math.floor(i / 100)}.pay`,
    }),
  },
  {
    name: 'one host, own paths',
    policy: (i) => ({ rule: to({ hosts: ['ledger.pay'], paths: [`/v1/orders/${i}`] }) }),
    call: (i, kind) => ({ path: `/v1/orders/${i}`, host: used(kind, 'ledger.pay', 'other.pay') }),
  },
  {
    name: 'one caller, templates of paths',
    policy: (i) => ({ rule: { ...web, ...to({ paths: [`/v1/{*}/item-${i}`], methods: ['GET'] }) } }),
    call: (i, kind) => ({ path: `/v1/eu/item-${i}`, method: used(kind, 'GET') }),
  },
  {
    name: 'a header',
    policy: (i) => ({ rule: when('request.headers[x-tenant]', `t-${i}`) }),
    call: (i, kind) => ({ context: { headerLines: headers('x-tenant', used(kind, `t-${i}`)) } }),
  },
  {
    name: 'denials by a header',
    policy: (i) =>
      i === 0 ? { rule: web } : { action: 'DENY', rule: when('request.headers[x-tenant]', `t-${i}`) },
    call: (i, kind) => ({
      context: { headerLines: headers('x-tenant', kind === 'hit' ? 'good' : `t-${Math.max(i, 1)}`) },
    }),
  },
  {
    name: 'a claim with eight values',
    policy: (i) => ({ rule: when('request.auth.claims[groups]', `g-${i}`) }),
    call: (i, kind) => ({ context: { claims: new Map([['groups', [...groups, used(kind, `g-${i}`)]]]) } }),
  },
  {
    name: 'tokens of one issuer',
    policy: (i) => ({ rule: from({ requestPrincipals: [`https://issuer.example/user-${i}`] }) }),
    call: (i, kind) => ({
      context: {
        claims: new Map([
          ['iss', 'https://issuer.example'],
          ['sub', used(kind, `user-${i}`)],
        ]),
      },
    }),
  },
  {
    name: 'blocks of addresses',
    policy: (i) => ({ rule: from({ ipBlocks: [`10.${Math.floor(i / 256)}.${i % 256}.0/24`] }) }),
    call: (i, kind) => ({
      context: { sourceIp: used(kind, `10.${Math.floor(i / 256)}.${i % 256}.7`, `11.0.${i % 256}.7`) },
    }),
  },
  {
    name: 'server names',
    policy: (i) => ({ rule: when('connection.sni', `*.t${i}.example`) }),
    call: (i, kind) => ({ context: { sni: used(kind, `a.t${i}.example`, `a.u${i}.example`) } }),
  },
  {
    name: 'metadata of a filter',
    policy: (i) => ({ rule: when('experimental.envoy.filters.http.f[k]', `v-${i}`) }),
    call: (i, kind) => ({
      context: { metadata: new Map([['envoy.filters.http.f', new Map([['k', used(kind, `v-${i}`)]])]]) },
    }),
  },
];

function principal(i: number): string {
  return `example.org/ns/shop/sa/svc-${i}`;
}

function from(source: object): object {
  return { from: [{ source }] };
}

function to(operation: object): object {
  return { to: [{ operation }] };
}

function when(key: string, value: string): object {
  return { when: [{ key, values: [value] }] };
}

function headers(name: string, line: string): CallContext['headerLines'] {
  const lines = [line];
  return (asked) => (asked === name ? lines : []);
}

/** What the call of a hit has, and that of a miss has not. */
function used<T>(kind: 'hit' | 'miss', hit: T, miss?: T): T {
  return kind === 'hit' ? hit : (miss ?? (`not-${String(hit)}` as T));
}

const web = from({ principals: ['example.org/ns/shop/sa/web'] });
const methods = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD', 'OPTIONS', 'LOCK', 'COPY', 'MOVE'];
const groups = Array.from({ length: 7 }, (_, i) => `other-${i}`);
