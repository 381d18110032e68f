// Istio's own encoding of policies as Envoy's RBAC filters, written from Istio's documents and read by Envoy, so that
// what we say of a policy is held against what a proxy does with it. It shares no code with ours.

type Fields = Readonly<Record<string, readonly string[] | undefined>>;
export type When = {
  readonly key: string;
  readonly values?: readonly string[];
  readonly notValues?: readonly string[];
};
export type RawRule = {
  readonly from?: readonly { readonly source: Fields }[];
  readonly to?: readonly { readonly operation: Fields }[];
  readonly when?: readonly When[];
};
export type RawPolicy = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly spec: { readonly action: 'ALLOW' | 'DENY'; readonly rules: readonly RawRule[] };
};

/** The RBAC filter for the policies of one action; null when there are none. */
export function encodeRbac(
  policies: readonly RawPolicy[],
  action: 'ALLOW' | 'DENY',
  trustDomains: readonly string[],
): object | null {
  const some = policies.filter(({ spec }) => spec.action === action);
  if (some.length === 0) return null;
  const encoded = some.flatMap(({ metadata: { namespace, name }, spec }): (readonly [string, object])[] => {
    const id = (index: number) => `ns[${namespace}]-policy[${name}]-rule[${index}]`;
    if (spec.rules.length === 0) return [[id(0), never]];
    return spec.rules.map((rule, index) => [id(index), encodeRule(rule, namespace, trustDomains)]);
  });
  return { action, policies: Object.fromEntries(encoded) };
}

const never = {
  permissions: [{ not_rule: { any: true } }],
  principals: [{ not_id: { any: true } }],
};

function encodeRule({ from, to, when = [] }: RawRule, namespace: string, trustDomains: readonly string[]) {
  const whens = when.map(({ key, values = [], notValues = [] }) => ({ key, values, notValues }));
  const ofPermission = whens.filter(({ key }) => /^(?:destination\.|connection\.)/.test(key));
  const ofPrincipal = whens.filter((one) => !ofPermission.includes(one));
  const principal = (conditions: readonly Required<When>[]) => ({
    and_ids: {
      ids: orAny(
        conditions.flatMap(({ key, values, notValues }) => {
          const or = (some: readonly string[]) => ({
            or_ids: {
              ids: aliases(key, some, trustDomains).map((value) => encodePrincipal(key, value, namespace)),
            },
          });
          return [
            ...(values.length > 0 ? [or(values)] : []),
            ...(notValues.length > 0 ? [{ not_id: or(notValues) }] : []),
          ];
        }),
      ),
    },
  });
  const permission = (conditions: readonly Required<When>[]) => ({
    and_rules: {
      rules: orAny(
        conditions.flatMap(({ key, values, notValues }) => {
          const or = (some: readonly string[]) => ({
            or_rules: { rules: some.map((value) => encodePermission(key, value)) },
          });
          return [
            ...(values.length > 0 ? [or(values)] : []),
            ...(notValues.length > 0 ? [{ not_rule: or(notValues) }] : []),
          ];
        }),
      ),
    },
  });
  return {
    principals: (from ?? [{ source: {} }]).map(({ source }) =>
      principal([...conditionsOf(source), ...ofPrincipal]),
    ),
    permissions: (to ?? [{ operation: {} }]).map(({ operation }) =>
      permission([...conditionsOf(operation), ...ofPermission]),
    ),
  };
}

function orAny(all: readonly object[]): readonly object[] {
  return all.length > 0 ? all : [{ any: true }];
}

const keys = {
  principals: 'source.principal',
  namespaces: 'source.namespace',
  serviceAccounts: 'source.serviceAccount',
  trustDomains: 'source.trustDomain',
  ipBlocks: 'source.ip',
  hosts: ':authority',
  methods: ':method',
  paths: 'path',
  ports: 'destination.port',
} as const;

function conditionsOf(fields: Fields): readonly Required<When>[] {
  return Object.entries(keys).flatMap(([field, key]) => {
    const not = `not${field.charAt(0).toUpperCase()}${field.slice(1)}`;
    const [values = [], notValues = []] = [fields[field], fields[not]];
    return values.length + notValues.length === 0 ? [] : [{ key, values, notValues }];
  });
}

function aliases(key: string, values: readonly string[], trustDomains: readonly string[]): readonly string[] {
  if (key === 'source.trustDomain') {
    return values.flatMap((value) => (trustDomains.includes(value) ? trustDomains : [value]));
  }
  if (key !== 'source.principal') return values;
  return values.flatMap((value) => {
    const parts = value.split('/');
    const [own = ''] = parts;
    if (parts.length !== 5 || own === '*') return [value];
    const isSuffix = (name: string) => own.startsWith('*') && name.endsWith(own.slice(1));
    const isPrefix = (name: string) => own.endsWith('*') && name.startsWith(own.slice(0, -1));
    const known = trustDomains.some((name) => name === own || isSuffix(name) || isPrefix(name));
    if (!known && own !== 'cluster.local') return [value];
    return [
      ...new Set(trustDomains.map((name) => (isSuffix(name) ? value : [name, ...parts.slice(1)].join('/')))),
    ];
  });
}

function encodePrincipal(key: string, value: string, namespace: string): object {
  const authenticated = (matcher: object) => ({ authenticated: { principal_name: matcher } });
  const regex = (text: string) => ({ safe_regex: { regex: text } });
  const header = /^request\.headers\[(.+)\]$/.exec(key)?.[1];
  if (header !== undefined) return { header: encodeHeader(header, value, false) };
  switch (key) {
    case 'source.principal':
      if (value === '*') return authenticated(regex('.+'));
      if (value.startsWith('*')) return authenticated(regex(`spiffe://.*${quote(value.slice(1))}`));
      if (value.endsWith('*')) return authenticated({ prefix: `spiffe://${value.slice(0, -1)}` });
      return authenticated({ exact: `spiffe://${value}` });
    case 'source.namespace':
      return authenticated(regex(`.*/ns/${value.split('*').map(quote).join('.*')}/.*`));
    case 'source.serviceAccount': {
      const [first = '', second] = value.split('/');
      const [ns, sa] = second === undefined ? [namespace, first] : [first, second];
      return authenticated(regex(`spiffe://.+/ns/${quote(ns)}/(.+/|)sa/${quote(sa)}(/.+)?`));
    }
    case 'source.trustDomain':
      if (value === '*') return authenticated({ prefix: 'spiffe://' });
      if (!value.includes('*')) return authenticated({ prefix: `spiffe://${value}/` });
      return authenticated(regex(`spiffe://${value.split('*').map(quote).join('[^/]*')}/.*`));
    case 'source.ip':
      return { direct_remote_ip: encodeBlock(value) };
    case 'remote.ip':
      return { remote_ip: encodeBlock(value) };
    default:
      throw new Error(`no principal ${key}`);
  }
}

function encodePermission(key: string, value: string): object {
  switch (key) {
    case ':authority':
      return { header: encodeHeader(key, value, true) };
    case ':method':
      return { header: encodeHeader(key, value, false) };
    case 'path':
      if (value.includes('{*}') || value.includes('{**}')) {
        return {
          uri_template: {
            name: 'uri-template',
            typed_config: {
              '@type':
                'type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig',
              path_template: value.replaceAll('{**}', '**').replaceAll('{*}', '*'),
            },
          },
        };
      }
      return { url_path: { path: encodeText(value) } };
    case 'destination.port':
      return { destination_port: Number(value) };
    case 'destination.ip':
      return { destination_ip: encodeBlock(value) };
    case 'connection.sni':
      return { requested_server_name: encodeText(value) };
    default:
      throw new Error(`no permission ${key}`);
  }
}

function encodeText(value: string): object {
  if (value === '*') return { safe_regex: { regex: '.+' } };
  if (value.startsWith('*')) return { suffix: value.slice(1) };
  return value.endsWith('*') ? { prefix: value.slice(0, -1) } : { exact: value };
}

function encodeHeader(name: string, value: string, ignoreCase: boolean): object {
  if (value === '*') return { name, present_match: true };
  return { name, string_match: { ...encodeText(value), ...(ignoreCase ? { ignore_case: true } : {}) } };
}

function encodeBlock(value: string): object {
  const [address, length] = value.split('/');
  return { address_prefix: address, prefix_len: Number(length ?? (value.includes(':') ? 128 : 32)) };
}

function quote(text: string): string {
  return text.replace(/[\\.+*?()|[\]{}^$]/g, '\\$&');
}
