import { InvalidArgumentError } from 'commander';

/** The same with a most, in days, which the server would refuse in words of its own. @throws InvalidArgumentError */
export function parseLifetimeUpTo(mostDays: number): (text: string) => number {
  return (text) => {
    const seconds = parseLifetime(text);
    if (seconds <= mostDays * 86_400) return seconds;
    throw new InvalidArgumentError(`It is ${mostDays}d at most.`);
  };
}

/** Parses `90`, `90s`, `15m`, `12h` or `30d` into seconds, for an option of a command. */
export function parseLifetime(text: string): number {
  const match = /^([1-9][0-9]{0,8})([smhd]?)$/.exec(text);
  const unit = secondsOf.get(match?.[2] ?? '');
  if (match === null || unit === undefined) {
    throw new InvalidArgumentError('Write it as 90s, 15m, 12h or 30d.');
  }
  return Number(match[1]) * unit;
}

const secondsOf: ReadonlyMap<string, number> = new Map([
  ['', 1],
  ['s', 1],
  ['m', 60],
  ['h', 3_600],
  ['d', 86_400],
]);
