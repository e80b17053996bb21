/** The port only names the socket file (`.s.PGSQL.5432`): the embedded PostgreSQL listens on no network port. */
const port = 5432

/** The longest path of a socket, in bytes: `sun_path` holds 104 on macOS, 108 on Linux, with its closing zero byte. */
const longestSocketPath = 103

/** The file in `folder` that PostgreSQL listens on. */
export function socketFile(folder: string): string {
  return `${folder}/.s.PGSQL.${port}`
}

/** Whether a socket in `folder` has a path short enough for the operating system. */
export function socketPathFits(folder: string): boolean {
  return Buffer.byteLength(socketFile(folder)) <= longestSocketPath
}

/**
 * The URL of the PostgreSQL that listens in `folder`, in libpq's form: `postgres://postgres@%2Ftmp%2Fx:5432/postgres`.
 * psql and pg_dump take it as it is; postgres.js needs `socketHost` beside it.
 * Source: PostgreSQL, "Connection URIs": a host that starts with a slash, percent-encoded, is a folder of sockets.
 */
export function socketUrl(folder: string): string {
  return `postgres://postgres@${encodeURIComponent(folder)}:${port}/postgres`
}

/**
 * What `postgres(url, options)` needs beside a URL that names a folder of sockets: `{ host: '/tmp/x' }`; nothing for
 * every other URL. postgres.js 3.4 does not decode the host of a URL, so it would look `%2Ftmp%2Fx` up as a name.
 */
export function socketHost(url: string): { host?: string } {
  const [, host] = /^postgres(?:ql)?:\/\/(?:[^@/]*@)?(%2f[^:/?]*)/i.exec(url) ?? []
  return host === undefined ? {} : { host: decodeURIComponent(host) }
}
