/**
 * Reads a time as people write it: RFC 3339 (`2026-01-31T12:00:00Z`, with an offset if need be), a date (midnight in
 * UTC), or a time ago (`90s`, `10m`, `2h`, `7d`, `4w`). Undefined for anything else, for days no calendar has, and for
 * times outside the years 0 to 9999.
 * @see RFC 3339 section 5.6
 */
export function parseMoment(text: string, now: Date): Date | undefined {
  const ago = /^(?<count>[0-9]{1,6})(?<unit>[smhdw])$/.exec(text)?.groups;
  const moment =
    ago === undefined
      ? parseTimestamp(text)
      : new Date(now.getTime() - Number(ago['count']) * (unitMs.get(ago['unit'] ?? '') ?? 0));
  const year = moment?.getUTCFullYear() ?? Number.NaN;
  return year >= 0 && year <= 9_999 ? moment : undefined;
}

function parseTimestamp(text: string): Date | undefined {
  const match = timestamp.exec(text);
  if (match?.groups === undefined) return undefined;
  // The Date constructor rolls February 31st over into March; the calendar of the date alone tells.
  const date = match.groups['date'] ?? '';
  const midnight = new Date(`${date}T00:00:00Z`);
  if (Number.isNaN(midnight.getTime()) || midnight.toISOString().slice(0, date.length) !== date) {
    return undefined;
  }
  if (match.groups['time'] === undefined) return midnight;
  const moment = new Date(text.toUpperCase());
  return Number.isNaN(moment.getTime()) ? undefined : moment;
}

const timestamp =
  /^(?<date>[0-9]{4}-[0-9]{2}-[0-9]{2})(?<time>[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2}))?$/;

/** The units of relative times, `10m` and the like, in milliseconds. */
export const unitMs: ReadonlyMap<string, number> = new Map([
  ['s', 1_000],
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
  ['w', 604_800_000],
]);
