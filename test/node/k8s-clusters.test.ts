import { expect, test } from 'vitest';
import { MeshError, formatPlace } from '../../src/errors.ts';
import { readClusters } from '../../src/node/kubernetes-cluster.ts';

const review = `tokenReview:
    url: https://10.0.0.1:6443
    caFile: /etc/ca.crt
    tokenFile: /etc/token`;
const offline = `offline:
    issuer: https://kubernetes.default.svc.cluster.local
    jwksFile: /etc/jwks.json`;

test('clusters are read as they are written', () => {
  const clusters = readClusters({
    file: 'c.yaml',
    text: `${document({ judge: `${review}\n    nodeLabels: [topology.kubernetes.io/zone]` })}---\n${document({ name: 'edge', judge: offline })}`,
  });
  expect([...clusters.keys()]).toEqual(['prod', 'edge']);
  expect(clusters.get('prod')).toEqual({
    name: 'prod',
    audience: 'countersign',
    serviceAccounts: new Set(['mesh:agent']),
    judge: {
      kind: 'token-review',
      server: { url: new URL('https://10.0.0.1:6443'), caFile: '/etc/ca.crt', tokenFile: '/etc/token' },
      nodeLabels: ['topology.kubernetes.io/zone'],
    },
  });
  expect(clusters.get('edge')?.judge).toEqual({
    kind: 'offline',
    issuer: 'https://kubernetes.default.svc.cluster.local',
    keys: { file: '/etc/jwks.json' },
  });
});

test.each<[string, string, string, string]>([
  ['another kind', 'document_kind_unknown', '1:1', 'apiVersion: countersign.dev/v1\nkind: Cluster\n'],
  ['another version', 'document_kind_unknown', '1:1', 'apiVersion: v1\nkind: KubernetesCluster\n'],
  ['a name that is no label', 'document_field_value', '3:19', document({ name: 'Prod_1' })],
  ['one cluster twice', 'document_field_value', '14:19', `${document()}---\n${document()}`],
  ['a field with a slip of the pen', 'document_field_unknown', '5:3', document({ audience: 'audiences: x' })],
  ['no audience', 'document_field_missing', '6:3', document({ audience: '' })],
  [
    'the audience of the API server',
    'document_field_value',
    '5:13',
    document({ audience: 'audience: https://kubernetes.default.svc' }),
  ],
  [
    'the issuer as audience',
    'document_field_value',
    '5:13',
    document({ audience: 'audience: https://kubernetes.default.svc.cluster.local', judge: offline }),
  ],
  ['no service account', 'document_field_value', '6:20', document({ accounts: '[]' })],
  [
    'a service account without a namespace',
    'document_field_value',
    '6:21',
    document({ accounts: '[agent]' }),
  ],
  ['any service account', 'document_field_value', '6:21', document({ accounts: "['mesh:*']" })],
  ['no judge', 'document_field_value', '5:3', document({ judge: '' })],
  ['two judges', 'document_field_value', '5:3', document({ judge: `${review}\n  ${offline}` })],
  [
    'an API server without TLS',
    'document_field_value',
    '8:10',
    document({ judge: review.replace('https:', 'http:') }),
  ],
  [
    'a URL with a password',
    'document_field_value',
    '8:10',
    document({ judge: review.replace('10.', 'a:b@10.') }),
  ],
  [
    'no CA of the API server',
    'document_field_missing',
    '8:5',
    document({ judge: review.replace(/\n {4}caFile.*/, '') }),
  ],
  [
    'a path that is relative',
    'document_field_value',
    '9:13',
    document({ judge: review.replace('/etc/ca', 'ca') }),
  ],
  [
    'an issuer that is no URL',
    'document_field_value',
    '8:13',
    document({ judge: offline.replace('https://', '') }),
  ],
  ['no keys', 'document_field_value', '8:5', document({ judge: offline.replace(/\n {4}jwksFile.*/, '') })],
  ['keys twice', 'document_field_value', '8:5', document({ judge: `${offline}\n    jwksUrl: https://a/b` })],
  [
    'a CA for a file',
    'document_field_value',
    '10:13',
    document({ judge: `${offline}\n    caFile: /etc/ca.crt` }),
  ],
  [
    'a label that is none',
    'document_field_value',
    '11:18',
    document({ judge: `${review}\n    nodeLabels: ['a b']` }),
  ],
])('refused: %s (%s at %s)', (_, code, place, text) => {
  const failed = (): MeshError => {
    try {
      readClusters({ file: 'c.yaml', text });
    } catch (error) {
      if (error instanceof MeshError) return error;
    }
    throw new Error('it was read');
  };
  const error = failed();
  expect([error.code, error.place && formatPlace(error.place)]).toEqual([code, `c.yaml:${place}`]);
  expect(error.fix).not.toBe('');
});

function document(
  change: { name?: string; audience?: string; accounts?: string; judge?: string } = {},
): string {
  const {
    name = 'prod',
    audience = 'audience: countersign',
    accounts = "['mesh:agent']",
    judge = review,
  } = change;
  return `apiVersion: countersign.dev/v1
kind: KubernetesCluster
metadata: { name: ${name} }
spec:
  ${audience === '' ? '# none' : audience}
  serviceAccounts: ${accounts}
  ${judge === '' ? '# none' : judge}
`;
}
