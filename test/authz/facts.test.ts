import { expect, test } from 'vitest';
import { untold } from '../../src/authz/context.ts';
import { Facts, wayTo } from '../../src/authz/facts.ts';
import { call, noon, trustDomain } from './mesh.ts';

const names = ['x-a', 'x-b', 'x-a', 'x-c', 'x-b', 'x-c', 'x-a'];

test('each header is read once, whichever was asked for before it', () => {
  const asked: string[] = [];
  const headerLines = (name: string): readonly string[] | undefined => {
    asked.push(name);
    return name === 'x-b' ? undefined : [` ${name} `];
  };
  const facts = new Facts({ ...call(), context: { ...untold, headerLines } }, trustDomain, noon);
  expect(names.map((name) => facts.headerLines(name)?.join())).toEqual(
    names.map((name) => (name === 'x-b' ? undefined : name)),
  );
  expect(asked).toEqual(['x-a', 'x-b', 'x-c']);
});

test('each claim and each address is told from the others, whichever was asked for before it', () => {
  const claims = new Map<string, unknown>([
    ['x-a', 'one'],
    ['x-b', ['two', 2, 'three']],
    ['x-c', new Map([['x-a', 'four']])],
    ['iss', 'i'],
    ['sub', 's'],
  ]);
  const context = { ...untold, claims, sourceIp: '10.0.0.1', remoteIp: 'nowhere', destinationIp: '::' };
  const facts = new Facts({ ...call(), context }, trustDomain, noon);
  for (let i = 0; i < 2; i++) {
    expect(facts.claim(wayTo(['x-a']))).toEqual(['one']);
    expect(facts.claim(wayTo(['x-b']))).toEqual(['two', 'three']);
    expect(facts.claim(wayTo(['x-c', 'x-a']))).toEqual(['four']);
    expect(facts.claim(wayTo(['x-c']))).toEqual([]);
    expect(facts.address('source.ip')).toEqual([10, 0, 0, 1]);
    expect(facts.address('remote.ip')).toBeUndefined();
    expect(facts.addressKey('remote.ip')).toBeUndefined();
    expect(facts.addressKey('source.ip')).toBe('40a000001');
    expect(facts.addressKey('destination.ip')).toBe(`6${'0'.repeat(32)}`);
    expect(facts.token).toEqual({ issuer: 'i', subject: 's' });
  }
});
