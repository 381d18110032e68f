import { MeshError, quote } from '../errors.ts';

/** The selector kinds that an attestor of this version can produce; an entry may ask for no others. */
export const selectorKinds = [
  'unix:uid',
  'unix:gid',
  'unix:user',
  'unix:path',
  'unix:sha256',
  'unix:ancestor-path',
  'systemd:unit',
  'k8s:ns',
  'k8s:sa',
  'k8s:pod-name',
  'k8s:pod-uid',
  'k8s:pod-label',
  'k8s:container-name',
  'k8s:container-image',
  'k8s:node-name',
  'docker:label',
  'docker:image-id',
  'docker:image',
] as const;
export type SelectorKind = (typeof selectorKinds)[number];

const maxValueLength = 1_024;

/** One attested property of a workload, such as `unix:uid:1000`. Equal when their texts are. */
export type Selector = { readonly kind: SelectorKind; readonly value: string; readonly text: string };

/**
 * Parses `unix:uid:1000`.
 * @throws MeshError `selector_invalid`
 */
export function parseSelector(text: string): Selector {
  // No kind is the beginning of another up to a colon, so that at most one fits.
  const kind = selectorKinds.find((known) => text.startsWith(`${known}:`));
  if (kind === undefined) {
    throw new MeshError('selector_invalid', `selector ${quote(text)} has an unknown kind`, {
      fix: `use one of ${selectorKinds.join(', ')}, for example unix:uid:1000`,
    });
  }
  return selector(kind, text.slice(kind.length + 1));
}

/**
 * A selector of parts.
 * @param value 1 to 1,024 printable characters, of the form the kind asks for
 * @throws MeshError `selector_invalid`
 */
export function selector(kind: SelectorKind, value: string): Selector {
  const why = valueProblem(kind, value);
  if (why !== undefined) {
    throw new MeshError('selector_invalid', `selector ${quote(`${kind}:${value}`)} ${why}`, {
      fix: forms[kind].fix ?? `write it as ${kind}:${forms[kind].example}`,
    });
  }
  return { kind, value, text: `${kind}:${value}` };
}

function valueProblem(kind: SelectorKind, value: string): string | undefined {
  if (value === '') return 'has no value';
  if (value.length > maxValueLength) return `has a value of more than ${maxValueLength} characters`;
  if (/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(value)) return 'has control characters';
  // What a reader of entries cannot see, or sees in another order.
  if (/[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]|\p{Cs}/u.test(value))
    return 'has invisible characters';
  const { pattern, problem } = forms[kind];
  if (!pattern.test(value)) return problem;
  const isId = kind === 'unix:uid' || kind === 'unix:gid';
  return isId && Number(value) > 0xffff_ffff ? problem : undefined;
}

type Form = {
  readonly pattern: RegExp;
  readonly problem: string;
  readonly example: string;
  readonly fix?: string;
};

const number: Omit<Form, 'example'> = { pattern: /^(0|[1-9][0-9]{0,9})$/, problem: 'is not a number' };
const path = {
  pattern: /^\//,
  problem: 'is not an absolute path',
  example: '/usr/bin/envoy',
  fix: 'give an absolute path',
};
const dnsLabel = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?';
const dnsName = {
  pattern: /^(?=.{1,253}$)[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/,
  problem: 'is not a name of Kubernetes',
};
const digest = {
  pattern: /^sha256:[0-9a-f]{64}$/,
  problem: 'is not a digest',
  example: `sha256:${'ab'.repeat(32)}`,
};
const anything = { pattern: /./, problem: 'has no value' };

// What each kind's attestor can produce, so that an entry with a slip of the pen is refused rather than never matched.
const forms: Record<SelectorKind, Form> = {
  'unix:uid': { ...number, example: '1000' },
  'unix:gid': { ...number, example: '1000' },
  'unix:user': { ...anything, example: 'web' },
  'unix:path': path,
  'unix:sha256': {
    pattern: /^[0-9a-f]{64}$/,
    problem: 'is not 64 hexadecimal digits in lower case',
    example: 'ab'.repeat(32),
    fix: 'take the digest that sha256sum prints',
  },
  'unix:ancestor-path': path,
  // systemd.unit(5)
  'systemd:unit': {
    pattern: /^(?=.{1,255}$)[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\@-]+)?\.service$/,
    problem: 'is not the name of a service',
    example: 'nginx.service',
  },
  'k8s:ns': { pattern: new RegExp(`^${dnsLabel}$`), problem: 'is not a namespace', example: 'shop' },
  'k8s:sa': { ...dnsName, example: 'web' },
  'k8s:pod-name': { ...dnsName, example: 'web-0' },
  'k8s:pod-uid': {
    pattern: /^([0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$/,
    problem: 'is not the uid of a pod',
    example: '2c48913c-b29f-11e7-9350-020968147796',
  },
  // A key has no colon, so that the first one parts it from the value, which may be empty.
  'k8s:pod-label': {
    pattern:
      /^(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?\/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?:(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$/,
    problem: 'is not a key and a value',
    example: 'app:web',
  },
  'k8s:container-name': {
    pattern: new RegExp(`^${dnsLabel}$`),
    problem: 'is not a container name',
    example: 'envoy',
  },
  'k8s:container-image': digest,
  'k8s:node-name': { ...dnsName, example: 'node-1' },
  'docker:label': { pattern: /^[^:]+:/, problem: 'is not a key and a value', example: 'com.example.app:web' },
  'docker:image-id': digest,
  'docker:image': { ...anything, example: 'nginx:1.29' },
};
