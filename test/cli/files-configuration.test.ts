import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { parseFilesConfiguration, readFilesConfiguration } from '../../src/cli/files-configuration.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());
const directory = makeTempDir(scope);

const head = 'apiVersion: countersign.dev/v1\nkind: FilesConfiguration\n';
const one = (more: string): string =>
  `${head}spec:\n  outputs:\n    - name: nginx\n      directory: /etc/nginx/svid\n${more}`;

test('a document with everything', () => {
  const text = `${head}spec:
  workloadSocket: /run/countersign/workload.sock
  metricsFile: /var/lib/metrics/countersign.prom
  outputs:
    - name: nginx
      spiffeId: spiffe://example.org/nginx
      directory: /etc/nginx/../nginx/svid
      owner: root
      group: '4242'
      onChange: [nginx, -s, reload]
      hookTimeoutSeconds: 5
      onBan: keep
    - name: haproxy
      directory: /etc/haproxy/svid
      files: { combined: haproxy.pem, bundle: ca.pem }
      mode: '0400'
      signal: { pidFile: /run/haproxy.pid, name: USR2 }
`;
  expect(parseFilesConfiguration('files.yaml', text)).toEqual({
    workloadSocket: '/run/countersign/workload.sock',
    metricsFile: '/var/lib/metrics/countersign.prom',
    outputs: [
      {
        name: 'nginx',
        identity: 'spiffe://example.org/nginx',
        directory: '/etc/nginx/svid',
        files: [
          ['certificate', 'svid.pem'],
          ['key', 'key.pem'],
          ['bundle', 'bundle.pem'],
        ],
        uid: 0,
        gid: 4_242,
        keyMode: 0o640,
        hook: { kind: 'run', argv: ['nginx', '-s', 'reload'] },
        hookTimeoutSeconds: 5,
        onBan: 'keep',
      },
      {
        name: 'haproxy',
        identity: 'default',
        directory: '/etc/haproxy/svid',
        files: [
          ['bundle', 'ca.pem'],
          ['combined', 'haproxy.pem'],
        ],
        uid: null,
        gid: null,
        keyMode: 0o400,
        hook: { kind: 'signal', pidFile: '/run/haproxy.pid', signal: 'USR2' },
        hookTimeoutSeconds: 30,
        onBan: 'remove',
      },
    ],
  });
});

test.each<[string, string, string]>([
  ['nothing', '', 'document_kind_unknown'],
  ['two documents', `${one('')}---\n${one('')}`, 'document_kind_unknown'],
  ['another kind', one('').replace('FilesConfiguration', 'Configuration'), 'document_kind_unknown'],
  ['no outputs', `${head}spec: { outputs: [] }`, 'document_field_value'],
  ['101 outputs', `${head}spec: { outputs: [${'{},'.repeat(101)}] }`, 'document_field_value'],
  ['an unknown field', one('      onchange: [x]\n'), 'document_field_unknown'],
  ['no directory', one('').replace(/ +directory.*\n/, ''), 'document_field_missing'],
  ['a relative directory', one('').replace('/etc/nginx/svid', 'svid'), 'document_field_value'],
  ['a name for a path', one('').replace('name: nginx', 'name: ../nginx'), 'document_field_value'],
  ['a name with a quote', one('').replace('name: nginx', "name: 'a\"b'"), 'document_field_value'],
  ['the same name twice', one('    - { name: nginx, directory: /b }\n'), 'document_field_value'],
  [
    'the same directory twice',
    one('    - { name: b, directory: /etc/nginx/x/../svid/ }\n'),
    'document_field_value',
  ],
  ['an identity of no workload', one('      spiffeId: spiffe://example.org\n'), 'spiffe_id_path_missing'],
  ['a file in another directory', one('      files: { key: ../key.pem }\n'), 'document_field_value'],
  ['a file that hides', one('      files: { key: ..data }\n'), 'document_field_value'],
  ['no file', one('      files: {}\n'), 'document_field_value'],
  ['two files of one name', one('      files: { key: a, certificate: a }\n'), 'document_field_value'],
  ['a user that is not there', one('      owner: no-such-user\n'), 'document_field_value'],
  ['a group that is not there', one('      group: no-such-group\n'), 'document_field_value'],
  ['a mode that is a number', one('      mode: 0640\n'), 'document_field_type'],
  ['a mode for everybody', one("      mode: '0644'\n"), 'document_field_value'],
  ['a mode for the group to write', one("      mode: '0660'\n"), 'document_field_value'],
  ['a hook for a shell', one('      onChange: nginx -s reload\n'), 'document_field_type'],
  ['an empty hook', one('      onChange: []\n'), 'document_field_value'],
  ['a hook without a program', one("      onChange: ['']\n"), 'document_field_value'],
  ['two hooks', one('      onChange: [x]\n      signal: { pidFile: /x }\n'), 'document_field_value'],
  ['a signal that ends', one('      signal: { pidFile: /x, name: KILL }\n'), 'document_field_value'],
  ['no time for the hook', one('      hookTimeoutSeconds: 0\n'), 'document_field_value'],
  ['all the time for the hook', one('      hookTimeoutSeconds: 601\n'), 'document_field_value'],
  ['an unknown end', one('      onBan: shred\n'), 'document_field_value'],
])('%s is refused with its place', (_, text, code) => {
  expect(() => parseFilesConfiguration('files.yaml', text)).toThrow(expect.objectContaining({ code }));
});

test.each([
  [0o600, undefined],
  [0o644, undefined],
  [0o664, 'file_permissions'],
  [0o646, 'file_permissions'],
])('a file of mode %o is %j', (mode, code) => {
  const file = join(directory, 'files.yaml');
  writeFileSync(file, one(''));
  chmodSync(file, mode);
  const read = () => readFilesConfiguration(file, new Map());
  if (code === undefined) expect(read().outputs).toHaveLength(1);
  else expect(read).toThrow(expect.objectContaining({ code }));
});

test.each([
  ['/nowhere/files.yaml', 'file_missing'],
  [directory, 'file_permissions'],
])('%s is refused', (file, code) => {
  expect(() => readFilesConfiguration(file, new Map())).toThrow(expect.objectContaining({ code }));
});
