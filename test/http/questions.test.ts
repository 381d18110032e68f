import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { callTypes } from '../../src/audit/columns.ts';
import { openCheckpoint } from '../../src/audit/checkpoint.ts';
import { sampleRank } from '../../src/audit/sample.ts';
import type { AnswerTable } from '../../src/identity/questions/answer.ts';
import { questions } from '../../src/identity/questions/catalogue.ts';
import { logKey } from '../audit/log-files.ts';
import { job, kiosk, ledger, policy, serials, startAuditWorld, web } from './audit-world.ts';
import type { TokenName } from './callers.ts';
import type { Harness } from './harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startAuditWorld();
});
afterAll(() => harness.close());

const ask = async (path: string, by: TokenName = 'auditor') =>
  harness.overTls({ path: `/v1/audit/questions/${path}` }, by);
const answer = async (path: string, by?: TokenName) => {
  const { status, json, text } = await ask(path, by);
  expect(status, text).toBe(200);
  return json;
};
const rows = (tables: readonly AnswerTable[], name: string, ...columns: readonly string[]) =>
  tables.find((table) => table.name === name)?.items.map((item) => columns.map((column) => item[column]));

describe('answers', () => {
  test.each<[string, string, string[], unknown[][]]>([
    // 1
    [
      `certificates?identity=${web}`,
      'issued',
      ['kind', 'serial', 'entry'],
      [
        ['certificate', serials.second, 'web'],
        ['token', serials.token, 'web'],
        ['certificate', serials.first, 'web'],
      ],
    ],
    [`certificates?identity=${web}&limit=1`, 'issued', ['serial'], [[serials.second]]],
    [
      'certificates?since=2027-01-01T02:00:00Z',
      'issued',
      ['identity', 'serial', 'evidence'],
      [[job, serials.orphan, ['unix:path:/usr/bin/envoy', 'unix:uid:1000']]],
    ],
    [`certificates?identity=${ledger}`, 'issued', ['serial'], []],
    // 2
    [`certificate?serial=${serials.first}`, 'issued', ['identity', 'process'], [[web, 'uid 1000 pid 4711']]],
    [
      `certificate?serial=${serials.first}`,
      'because',
      ['what', 'revision'],
      [
        ['entry web created', 1],
        ['policy revision 1 in force', 1],
      ],
    ],
    [`certificate?serial=${serials.first}`, 'renewals', ['when', 'serial'], [['after', serials.second]]],
    ['certificate?serial=AA:02', 'renewals', ['when', 'serial'], [['before', serials.first]]],
    [
      `certificate?serial=${serials.second}`,
      'bans',
      ['action', 'kind', 'reason'],
      [['created', 'spiffe-id', 'host taken over']],
    ],
    [
      `certificate?serial=${serials.first}`,
      'uses',
      ['proxy', 'node', 'allowed', 'denied', 'first', 'last'],
      [[ledger, 'db-1', 117, 0, '2027-01-01T01:09:00.000Z', '2027-01-01T01:10:00.000Z']],
    ],
    [`certificate?serial=${serials.second}`, 'uses', ['proxy', 'allowed', 'denied'], [[ledger, 2, 1]]],
    // 3
    ['valid-at?at=2027-01-01T01:45:00Z', 'valid', ['serial'], [[serials.second], [serials.first]]],
    ['valid-at?at=2027-01-01T01:45:00Z&limit=1', 'valid', ['serial'], [[serials.second]]],
    ['valid-at?at=2027-01-01T02:50:00Z', 'outliving', ['serial'], []],
    [
      'valid-at?at=2027-01-01T03:10:00Z',
      'outliving',
      ['serial', 'entry', 'deletedAt'],
      [[serials.orphan, 'job', '2027-01-01T03:00:00.000Z']],
    ],
    ['valid-at?at=2027-01-01T03:50:00Z', 'valid', ['serial'], []],
    // 4
    [
      'keys',
      'steps',
      ['kind', 'action', 'by'],
      [
        ['token key', 'activated', 'system'],
        ['root', 'forced', 'uid:0'],
        ['token key', 'created', 'system'],
      ],
    ],
    ['keys?of=ca', 'steps', ['kind'], [['root']]],
    // 5
    [
      'policy-changes?policy=bank/p',
      'changes',
      ['action', 'message'],
      [
        ['updated', 'for the audit'],
        ['created', 'for the audit'],
      ],
    ],
    [
      'policy-changes?policy=bank/p',
      'differences',
      ['before', 'after'],
      [
        [policy('GET, PUT'), policy('PUT')],
        ['', policy('GET, PUT')],
      ],
    ],
    [
      'policy-changes?policy=bank/p&around=2h',
      'effect',
      ['source', 'allowedBefore', 'deniedAfter'],
      [[web, 117, 1]],
    ],
    ['policy-changes?policy=shop/none', 'changes', ['action'], []],
    // 7
    ['decision?id=d-5', 'records', ['verdict', 'source', 'path'], [['deny', web, '/accounts/7']]],
    // 8
    [`who-can?destination=${ledger}&at=2027-01-01T01:30:00Z`, 'callers', ['caller'], [[job], [web]]],
    [
      `who-can?destination=${ledger}&at=2027-01-01T01:30:00Z&method=GET`,
      'callers',
      ['caller', 'may'],
      [[web, 'always']],
    ],
    [`who-can?destination=${ledger}&at=2027-01-01T02:30:00Z&method=GET`, 'callers', ['caller'], []],
    [`who-can?destination=${ledger}`, 'callers', ['caller'], []],
    [
      `who-can?destination=${ledger}`,
      'rules',
      ['rule', 'calls', 'used'],
      [
        ['bank/p rule[0]', 119, true],
        ['bank/p rule[1]', 0, false],
      ],
    ],
    // 9
    [
      'denied?namespace=bank',
      'denied',
      ['source', 'reason', 'denials', 'first'],
      [
        [job, 'no_allow_rule', 2, '2027-01-01T01:12:00.000Z'],
        [web, 'no_allow_rule', 1, '2027-01-01T02:10:00.000Z'],
        ['', 'caller_unknown', 1, '2027-01-01T01:13:00.000Z'],
      ],
    ],
    ['denied?label=pci=true&since=2027-01-01T02:00:00Z', 'denied', ['source'], [[web]]],
    [`denied?destination=${web}`, 'denied', ['source', 'denials'], [[ledger, 1]]],
    ['denied?namespace=nowhere', 'denied', ['source'], []],
    // 10
    [
      'connections',
      'exceptions',
      ['kind', 'source', 'reason', 'connections'],
      [
        ['tls_failed', '', 'unknown_issuer', 7],
        ['foreign', '', '', 5],
        ['plaintext', '', '', 1],
      ],
    ],
    [
      'connections?label=pci=true',
      'services',
      ['destination', 'mtls', 'plaintext', 'foreign', 'failed', 'share'],
      [[ledger, 2_999, 1, 5, 7, '99.96 %']],
    ],
    ['connections?namespace=shop', 'services', ['destination'], []],
    // 11
    [
      'actions?actor=uid:0',
      'actions',
      ['action', 'knownBy'],
      [
        ['entry_change created', 'user of the admin socket'],
        ['authority forced', 'user of the admin socket'],
      ],
    ],
    [
      'actions?actor=token:0123456789abcdef',
      'actions',
      ['what', 'breakGlass'],
      [['bank/glass outage, ticket 7, until 05:00', 'outage, ticket 7, until 05:00']],
    ],
    ['actions?actor=oidc:nobody', 'actions', ['action'], []],
    // 12
    [
      'log-access',
      'runs',
      ['action', 'note'],
      [
        ['started', ''],
        ['started', 'the run before it ended without a word'],
      ],
    ],
    ['log-access', 'losses', ['cause'], [['not_told'], ['queue full']]],
    // 14
    [
      `compromise?ban=${web}`,
      'accepted after the ban',
      ['proxy', 'allowed', 'last'],
      [[ledger, 2, '2027-01-01T04:00:07.000Z']],
    ],
    [`compromise?ban=${web}`, 'last accepted', ['proxy', 'allowed'], [[ledger, 119]]],
    [`compromise?ban=${web}`, 'alarms', ['serial', 'identity', 'proxy'], [['0badc0de', web, ledger]]],
    [`compromise?ban=${web}`, 'still valid', ['serial'], []],
    [`certificate?serial=${serials.token}`, 'renewals', ['serial'], []],
    [
      'actions?reads=no&limit=3',
      'actions',
      ['action'],
      [['entry_change created'], ['policy_change deleted'], ['jwt_key activated']],
    ],
    // 15
    [
      'sample?seed=s&since=2027-01-01T04:00:00Z',
      'population',
      ['kind', 'changes'],
      [
        ['authority forced', 1],
        ['ban created', 1],
        ['entry_change created', 1],
        ['jwt_key activated', 1],
        ['policy_change deleted', 1],
      ],
    ],
    [
      'sample?seed=s&since=2027-01-01T04:00:00Z',
      'exceptions',
      ['kind', 'why'],
      [
        ['authority forced', 'forced without the evidence it takes'],
        ['policy_change deleted', 'break glass: outage, ticket 7, until 05:00'],
        ['entry_change created', 'certificates live for 86400 s'],
      ].reverse(),
    ],
    // beside them
    [
      'graph?since=2027-01-01T00:00:00Z',
      'edges',
      ['source', 'destination', 'allowed', 'denied', 'plaintext'],
      [
        [web, ledger, 119, 1, 0],
        [kiosk.source, kiosk.destination, 40, 1, 0],
        [job, ledger, 0, 2, 0],
        ['', ledger, 0, 1, 1],
        [ledger, web, 0, 1, 0],
      ],
    ],
    ['graph?namespace=nowhere', 'edges', ['source'], []],
  ])('%s: %s', async (path, table, columns, expected) => {
    const found = rows((await answer(path)).tables, table, ...columns);
    expect(found).toEqual(expected);
  });

  test('each has its head and its coverage, and its rows are proven under that head', async () => {
    for (const name of ['certificates', 'denied', 'keys', 'graph']) {
      const { head, coverage, tables } = await answer(name);
      expect(openCheckpoint(head.checkpoint, logKey)).toMatchObject({ size: head.size });
      expect(coverage.losses).toMatchObject([{ count: 12, cause: 'queue full' }, { what: 'proxy_verdict' }]);
      const [{ items }] = tables;
      expect(items.length).toBeGreaterThan(0);
      for (const { index } of items) {
        expect(index).toBeLessThan(head.size);
        const { status } = await harness.overTls({ path: `/v1/audit/proof/${index}` }, 'auditor');
        expect(status).toBe(200);
      }
    }
  });

  test('pages follow one another without a row twice', async () => {
    const seen: string[] = [];
    let cursor = '';
    do {
      const page = await answer(`certificates?limit=1${cursor === '' ? '' : `&cursor=${cursor}`}`);
      seen.push(...page.tables[0].items.map(({ serial }: { serial: string }) => serial));
      cursor = page.next ?? '';
    } while (cursor !== '');
    expect(seen).toEqual([serials.orphan, serials.second, serials.token, serials.first]);
  });

  test('a rank is SHA-256 of the seed, a colon and the index', () => {
    // printf 'one:7' | sha256sum
    expect(sampleRank('one', 7)).toBe('986867574e23c56a394db472500700b308d0ea531fc5b15db1fe1de51a5924ef');
  });

  test('a sample is drawn by its seed alone', async () => {
    const indexes = async (seed: string, size: number): Promise<number[]> =>
      (await answer(`sample?seed=${seed}&size=${size}&until=2027-01-01T04:30:00Z`)).tables[1].items.map(
        ({ index }: { index: number }) => index,
      );
    const all = await indexes('one', 200);
    const drawn = await indexes('one', 3);
    const byRank = all.toSorted((a, b) => (sampleRank('one', a) < sampleRank('one', b) ? -1 : 1));
    expect([drawn, await indexes('one', 3)]).toEqual([byRank.slice(0, 3), drawn]);
    expect(await indexes('two', 200)).not.toEqual(all);
    expect(new Set(all).size).toBe(all.length);
  });

  test('the proof names the first and the last entry of a window', async () => {
    const { tables, says } = await answer('proof?since=2027-01-01T04:10:00Z&until=2027-01-01T04:12:00Z');
    const [[first], [last]] = rows(tables, 'covered', 'index') as [[number], [number]];
    expect(last - first).toBe(1);
    expect(says[0]).toContain(`entries ${first} to ${last} of `);
  });
});

describe('refusals', () => {
  test.each([
    ['nothing', 404, 'audit_question_unknown'],
    ['certificate', 400, 'audit_query_invalid'],
    ['replay', 400, 'audit_query_invalid'],
    ['replay?revision=99', 404, 'policy_revision_not_found'],
    ['certificates?identity=web', 400, 'audit_query_invalid'],
    ['certificates?idenity=x', 400, 'audit_query_invalid'],
    ['certificates?limit=0', 400, 'audit_query_invalid'],
    ['certificates?limit=1001', 400, 'audit_query_invalid'],
    ['certificates?since=yesterday', 400, 'audit_query_invalid'],
    ['certificates?since=1h&until=2h', 400, 'audit_query_invalid'],
    ['certificates?cursor=x', 400, 'audit_cursor_invalid'],
    ['certificates?since=1h&since=2h', 400, 'query_invalid'],
    ['certificate?serial=xyz', 400, 'audit_query_invalid'],
    ['certificate?serial=ff', 404, 'audit_certificate_not_found'],
    ['valid-at?at=31.12.', 400, 'audit_query_invalid'],
    ['keys?of=root', 400, 'audit_query_invalid'],
    ['policy-changes?policy=p', 400, 'audit_query_invalid'],
    ['policy-changes?around=7', 400, 'audit_query_invalid'],
    ['decision?id=%20', 400, 'audit_query_invalid'],
    ['decision?id=unknown', 404, 'decision_not_found'],
    ['who-can', 400, 'audit_query_invalid'],
    [`who-can?destination=${ledger}&method=G%20T`, 400, 'audit_query_invalid'],
    [`who-can?destination=${ledger}&path=x`, 400, 'audit_query_invalid'],
    [`who-can?destination=${ledger}&at=2026-01-01`, 404, 'policy_revision_not_found'],
    ['denied?namespace=A', 400, 'audit_query_invalid'],
    ['denied?label=pci', 400, 'audit_query_invalid'],
    [`denied?namespace=${'a,'.repeat(65)}a`, 400, 'audit_query_invalid'],
    ['actions?reads=maybe', 400, 'audit_query_invalid'],
    ['actions?actor=root', 400, 'audit_query_invalid'],
    ['compromise?ban=%00', 400, 'audit_query_invalid'],
    ['compromise?ban=ff', 404, 'ban_not_found'],
    ['sample', 400, 'audit_query_invalid'],
    ['sample?seed=', 400, 'audit_query_invalid'],
    ['sample?seed=a%20b', 400, 'audit_query_invalid'],
    [`sample?seed=${'a'.repeat(65)}`, 400, 'audit_query_invalid'],
    ['sample?seed=s&size=201', 400, 'audit_query_invalid'],
    ['graph?namespace=%22', 400, 'audit_query_invalid'],
    ['__proto__', 404, 'audit_question_unknown'],
    ['graph?constructor=1', 400, 'audit_query_invalid'],
  ])('%s is %i %s', async (path, status, code) => {
    const refused = await ask(path);
    expect([refused.status, refused.json.code], refused.text).toEqual([status, code]);
  });

  const example: Readonly<Record<string, string>> = {
    certificate: `serial=${serials.first}`,
    decision: 'id=d-1',
    'who-can': `destination=${ledger}`,
    compromise: `ban=${web}`,
    sample: 'seed=s',
  };
  test.each(questions.map(({ name, needs }) => [name, needs] as const))(
    '%s is for those who may read what it is made of: %j',
    async (name, needs) => {
      const path = `${name}?${example[name] ?? ''}`;
      const aboutCalls = needs.includes('audit:decisions');
      const byViewer = await ask(path, 'viewer');
      expect(byViewer.status, byViewer.text).toBe(aboutCalls ? 403 : 200);
      expect((await ask(path, 'policy-author')).status).toBe(403);
      if (aboutCalls) return;
      expect(byViewer.json.coverage.notSearched).toEqual([...callTypes]);
      expect(byViewer.text).not.toMatch(/192\.0\.2|127\.0\.0\.1:40000|\/accounts\/7|"uses"|"effect"/);
    },
  );

  test('asking is recorded with the question, before it is answered', async () => {
    await ask(`certificates?identity=${ledger}&limit=7`);
    const events = await harness.events('admin');
    expect(events.filter(({ action }) => action === 'audit_read').map(({ detail }) => detail)).toContain(
      `question=certificates identity=${ledger}`,
    );
  });
});

test('all questions are listed, with what they take', async () => {
  const { json } = await harness.overTls({ path: '/v1/audit/questions' }, 'viewer');
  expect(json.items.map(({ name }: { name: string }) => name)).toEqual(questions.map(({ name }) => name));
  expect(json.unanswered).toEqual([]);
});
