import { from, to, when } from './bypass.ts';

/** A policy that would protect less than it seems to: it is refused as a whole. */
export type DocumentBypass = {
  readonly ids: string;
  readonly attack: string;
  /** Specs, as values or as YAML in flow form. */
  readonly specs: readonly (object | string)[];
  readonly code: string;
};

export const documentBypasses: readonly DocumentBypass[] = [
  {
    ids: 'CVE-2022-21679',
    attack: 'a condition that the reader does not know, and takes for one that always holds',
    specs: [
      { rules: [{ from: [{ source: { principalz: ['a'] } }] }] },
      { rules: [{ to: [{ operation: { methods: ['GET'], schemes: ['https'] } }] }] },
      { rules: [{ if: [] }] },
      { rule: [{}] },
    ],
    code: 'document_field_unknown',
  },
  {
    ids: 'CVE-2022-21679',
    attack: 'the same by the name of an attribute',
    specs: [
      { rules: when('request.headerz[x]', { values: ['a'] }) },
      { rules: when('source.labels[a]', { values: ['b'] }) },
      { action: 'DENY', rules: when('destination.labels[a]', { values: ['b'] }) },
    ],
    code: 'policy_invalid',
  },
  {
    ids: 'CVE-2025-64715',
    attack: 'an empty list that means nobody to its author and everybody to the engine',
    specs: [
      { rules: from({ ipBlocks: [] }) },
      { rules: from({ principals: [] }) },
      { rules: from({}) },
      { rules: to({}) },
      { rules: [{ from: [] }] },
      { rules: [{ to: [], from: [{ source: { namespaces: ['a'] } }] }] },
      { rules: from({ principals: [''] }) },
    ],
    code: 'policy_invalid',
  },
  {
    ids: 'CVE-2025-64715',
    attack: 'a field without a value',
    specs: [
      '{ rules: [{ from: [{ source: { principals: } }] }] }',
      '{ rules: }',
      '{ rules: [{ to: null }] }',
    ],
    code: 'document_field_type',
  },
  {
    ids: 'deny-that-cannot-match',
    attack: 'a DENY that no call can match: it looks like protection',
    specs: [
      { action: 'DENY' },
      { action: 'DENY', rules: [] },
      { action: 'DENY', rules: to({ paths: ['/a*b'] }) },
      { action: 'DENY', rules: to({ hosts: ['b\u00fccher.pay'] }) },
      { action: 'DENY', rules: to({ ports: ['0'] }) },
      { action: 'DENY', rules: to({ paths: ['admin'] }) },
      { action: 'DENY', rules: to({ paths: ['/a//b'] }) },
      { action: 'DENY', rules: from({ ipBlocks: ['10.0.0.0/33'] }) },
    ],
    code: 'policy_invalid',
  },
  {
    ids: 'duplicate-key',
    attack: 'one key twice, of which one reader takes the first and another the last',
    specs: ['{ rules: [{}], rules: [] }', '{ action: DENY, rules: [{}], action: ALLOW }'],
    code: 'document_duplicate_key',
  },
];
