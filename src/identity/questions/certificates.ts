import { answerTable, findings, numbered } from './answer.ts';
import { listOf, type LoggedEvent, numberOf, processName, readEvent, textOf } from './event-fields.ts';
import { identity, optional, paging, window } from './parameter.ts';
import { windowOf } from './ports.ts';
import { defineQuestion } from './question.ts';

/** Every certificate and token that was issued, to whom, and on what evidence. */
export const certificates = defineQuestion({
  name: 'certificates',
  line: 'every certificate and token issued for an identity, and on what evidence',
  parameters: {
    identity: optional('SPIFFE ID; every identity when it is left out', identity, null),
    ...window,
    ...paging,
  },
  find: async (asked, { read }) => {
    const page = await read({
      types: ['issuance', 'jwt_issuance'],
      ...(asked.identity === null ? {} : { source: asked.identity }),
      ...windowOf(asked),
      limit: asked.limit,
      ...(asked.cursor === null ? {} : { cursor: asked.cursor }),
    });
    const events = page.rows.map(readEvent);
    const tokens = events.filter(({ type }) => type === 'jwt_issuance').length;
    const whose = asked.identity ?? 'all identities';
    return findings({
      says: [
        `${numbered(events.length - tokens, 'certificate')} and ${numbered(tokens, 'token')} of ${whose} are shown${page.next === null ? '' : '; there are more'}`,
      ],
      tables: [
        answerTable('issued', issuedColumns, events.map(issuedRow), {
          details: issuedDetails,
          more: page.next !== null,
        }),
      ],
      next: page.next,
    });
  },
});

/** An issuance as a row of an answer. */
export function issuedRow({ index, type, time, event }: LoggedEvent) {
  const isToken = type === 'jwt_issuance';
  return {
    index,
    time,
    kind: isToken ? 'token' : 'certificate',
    identity: textOf(event, 'spiffeId'),
    serial: textOf(event, isToken ? 'jwtId' : 'serial'),
    notAfter: textOf(event, 'notAfter'),
    entry: textOf(event, 'entryId'),
    entryRevision: numberOf(event, 'entryRevision'),
    evidence: listOf(event, 'selectors'),
    process: processName(event),
    notBefore: textOf(event, isToken ? 'issuedAt' : 'notBefore'),
    issuerKeyId: textOf(event, isToken ? 'keyId' : 'issuerKeyId'),
    spkiSha256: textOf(event, 'spkiSha256'),
    tbsSha256: textOf(event, 'tbsSha256'),
  };
}

/** The columns of {@link issuedRow}. */
export const issuedColumns = [
  'index',
  'time',
  'kind',
  'identity',
  'serial',
  'notAfter',
  'entry',
  'entryRevision',
  'evidence',
  'process',
] as const;
/** Those that people are shown only when they ask for them. */
export const issuedDetails = ['notBefore', 'issuerKeyId', 'spkiSha256', 'tbsSha256'] as const;
