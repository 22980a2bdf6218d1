import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';

/**
 * Runs one command in the guest over its second serial port: the line `NONCE COMMAND` goes in, output comes back, then
 * `LAB-END NONCE CODE`. Throws when the command fails or says nothing final within `timeoutMs`.
 */
export function runInGuest(socketPath: string, command: string, timeoutMs: number): Promise<string> {
  const nonce = randomBytes(6).toString('hex');
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    let text = '';
    const finish = (error: Error | undefined, output = ''): void => {
      clearTimeout(timer);
      socket.destroy();
      if (error === undefined) resolve(output);
      else reject(error);
    };
    const timer = setTimeout(
      () => finish(new Error(`the guest did not answer within ${timeoutMs} ms: ${command}\n${text}`)),
      timeoutMs,
    );
    socket.setEncoding('utf8');
    socket.on('error', (error) => finish(error));
    socket.on('close', () => finish(new Error(`the guest's serial port closed during: ${command}`)));
    socket.on('data', (chunk) => {
      text += chunk;
      const end = new RegExp(`\\n?LAB-END ${nonce} (\\d+)\\n`).exec(text);
      if (end === null) return;
      const output = text.slice(0, end.index).replace(/^[\s\S]*LAB-END [0-9a-f]{12} \d+\n/, '');
      if (end[1] === '0') finish(undefined, output);
      else finish(new Error(`in the guest, exit ${end[1]}: ${command}\n${output}`));
    });
    socket.write(`${nonce} ${command}\n`);
  });
}

/**
 * Starts a command that the guest does not survive; resolves once the guest has begun with it. What is sent before the
 * guest has opened its port is lost, and QEMU drops what it hasn't passed on when we close: so it is sent again until
 * the guest answers, and the connection stays open until then. The quotes keep an echo of the line (a port that is open
 * but not raw yet) from looking like the answer; the pause lets the answer out before the guest stops for good.
 */
export function sendToGuest(socketPath: string, command: string, timeoutMs = 120_000): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    const send = (): void => void socket.write(`\nnone echo LAB-''BEGIN; sleep 0.2; ${command}\n`);
    const again = setInterval(send, 2_000);
    const finish = (error?: Error): void => {
      clearInterval(again);
      clearTimeout(timer);
      socket.destroy();
      if (error) reject(error);
      else resolve();
    };
    const timer = setTimeout(
      () => finish(new Error(`the guest did not begin within ${timeoutMs} ms: ${command}`)),
      timeoutMs,
    );
    let text = '';
    socket.setEncoding('utf8');
    socket.on('error', finish);
    socket.on('data', (chunk) => {
      text += chunk;
      if (text.includes('LAB-BEGIN')) finish();
    });
    send();
  });
}
