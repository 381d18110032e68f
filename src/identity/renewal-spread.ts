/**
 * Over how long nodes spread the certificates that are replaced after an ordinary change of the root, in ms: 5 seconds to
 * an hour. The authority is asked by about 17 nodes in a second, and for no more than 200 certificates, however many
 * there are: 80 nodes take 5 seconds, 1,000 a minute, 10,000 ten minutes.
 * @param nodes that are told to, 0 or more
 * @param certificates that each of them has for its workloads, as far as the one who asks can tell
 */
export function renewalSpreadMs(nodes: number, certificates: number): number {
  const whole = nodes * (perNodeMs + certificates * perCertificateMs);
  return Math.min(longestMs, Math.max(shortestMs, whole));
}

// A node that renews its own connects again and is sent its whole view.
const perNodeMs = 60;
const perCertificateMs = 5;
const shortestMs = 5_000;
const longestMs = 3_600_000;
