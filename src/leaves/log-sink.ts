/** Where a part writes its lines for the log; the daemon gives them to its logger. An error goes in as `fields.err`. */
export type LogSink = (level: 'debug' | 'info' | 'warn' | 'error', message: string, fields?: object) => void;
