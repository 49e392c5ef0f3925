// A relay on Node.js and ws: node ws.js PORT REDIS_PORT. /ws/operations/{name} follows the channel operation:{name}.
import { WebSocketServer } from "ws";
import { Redis } from "ioredis";

const [port, redisPort] = process.argv.slice(2).map(Number);
const redis = new Redis({ host: "127.0.0.1", port: redisPort });
const channels = new Map();

redis.on("messageBuffer", (channel, message) => {
  for (const socket of channels.get(channel.toString()) ?? []) socket.send(message, { binary: false });
});

const server = new WebSocketServer({ host: "127.0.0.1", port, backlog: 4096, perMessageDeflate: false, maxPayload: 65536 });
server.on("connection", (socket, request) => {
  const channel = "operation:" + request.url.split("?")[0].split("/").pop();
  let sockets = channels.get(channel);
  if (!sockets) {
    channels.set(channel, (sockets = new Set()));
    redis.subscribe(channel);
  }
  sockets.add(socket);
  socket.isAlive = true;
  socket.on("pong", () => { socket.isAlive = true; });
  socket.on("error", () => {});
  socket.on("close", () => sockets.delete(socket));
});

setInterval(() => {
  for (const socket of server.clients) {
    if (!socket.isAlive) { socket.terminate(); continue; }
    socket.isAlive = false;
    socket.ping();
  }
}, 30000);
