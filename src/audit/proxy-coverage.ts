import type { AuditEvent, LossEvent } from './event.ts';
import type { ProxyCoverageEvent } from './proxy-event.ts';

/** What was said of a proxy before: up to when, and how many calls it had judged by then. */
export type SaidBefore = Pick<ProxyCoverageEvent, 'counted' | 'to'>;

/**
 * Looks up the last record of the proxy that an event is about: of the same process, which began at the same time.
 * @returns undefined when there is none
 */
export type FindSaidBefore = (event: ProxyCoverageEvent) => Promise<SaidBefore | undefined>;

/** Whether whoever counted has seen the proxy for the first time, and cannot know what was said of it before. */
export function isFirstOfProxy({ from, started }: ProxyCoverageEvent): boolean {
  return from.getTime() === started.getTime();
}

/**
 * Completes counts of proxies on their way into the log: those of an agent that has just begun lose what was said of the
 * proxy before, and calls that nobody has told of are losses. What an agent was told and had not shipped when it was killed
 * is among those.
 */
export async function completeCoverage(
  events: readonly AuditEvent[],
  find: FindSaidBefore,
): Promise<readonly AuditEvent[]> {
  if (!events.some(({ type }) => type === 'proxy_coverage')) return events;
  const completed: AuditEvent[] = [];
  for (const event of events) {
    if (event.type !== 'proxy_coverage') completed.push(event);
    else completed.push(...(await complete(event, find)));
  }
  return completed;
}

async function complete(event: ProxyCoverageEvent, find: FindSaidBefore): Promise<readonly AuditEvent[]> {
  const before = isFirstOfProxy(event) ? await find(event) : undefined;
  const rest = before === undefined ? event : withoutSaid(event, before);
  if (rest.count <= 0 && rest.missing <= 0) return [];
  return rest.missing === 0 ? [rest] : [rest, lossOf(rest)];
}

/** What nobody told this agent of includes all that an earlier one was told. */
function withoutSaid(event: ProxyCoverageEvent, { counted, to }: SaidBefore): ProxyCoverageEvent {
  const count = event.count - counted;
  const missing = Math.max(0, event.missing - counted);
  return { ...event, count, missing, from: to < event.to ? to : event.to };
}

function lossOf({ time, from, to, missing, destination }: ProxyCoverageEvent): LossEvent {
  return {
    type: 'loss',
    time,
    what: 'proxy_verdict',
    count: missing,
    from,
    to,
    cause: 'not_told',
    service: destination,
  };
}
