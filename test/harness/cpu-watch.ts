/**
 * Begins to count the time that this process has a processor. For bounds on how much work something is: time on the wall
 * also passes while a busy machine works for others.
 * @returns the milliseconds of all threads together since the start
 */
export function startCpuWatch(): () => number {
  const start = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(start);
    return (user + system) / 1_000;
  };
}
