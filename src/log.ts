import { type DestinationStream, type Logger, type LoggerOptions, pino } from 'pino'

export type Log = Logger

/** Names under which a secret could arrive in a logged object. Their values are never written. */
const secrets = ['authorization', 'cookie', 'password', 'token', 'secret', 'databaseUrl', 'DATABASE_URL', 'privateKey']

/** One JSON object a line, on standard output or where told. Times are ISO 8601 in UTC. */
export function openLog(level: string, destination: DestinationStream = pino.destination({ fd: 1, sync: true })): Log {
  const options: LoggerOptions = {
    level,
    base: { pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    redact: { paths: secrets.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]), censor: '(hidden)' },
    serializers: { error: describeError },
  }
  return pino(options, destination)
}

/** An error and its causes, without what a query string or an address may carry. */
function describeError(error: unknown): unknown {
  if (!(error instanceof Error)) return withoutSecrets(String(error))
  const { code } = error as { code?: unknown }
  return {
    type: error.name,
    message: withoutSecrets(error.message),
    ...(code === undefined ? {} : { code }),
    stack: error.stack === undefined ? undefined : withoutSecrets(error.stack),
    ...(error.cause === undefined ? {} : { cause: describeError(error.cause) }),
  }
}

/** Hides the signature of a presigned address and the password of a database address in a text. */
export function withoutSecrets(text: string): string {
  return text
    .replace(/([?&]X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s"']*/gi, '$1(hidden)')
    .replace(/(:\/\/[^:@/?\s]*:)[^@/\s]*@/g, '$1***@')
}
