// A relay on Bun, whose WebSockets are uWebSockets: bun bun.js PORT REDIS_PORT. /ws/operations/{name} follows the channel operation:{name}.
const [port, redisPort] = process.argv.slice(2).map(Number);
const redis = new Bun.RedisClient(`redis://127.0.0.1:${redisPort}`);
const subscribed = new Set();
await redis.connect();

const server = Bun.serve({
  hostname: "127.0.0.1",
  port,
  fetch(request, server) {
    const channel = "operation:" + new URL(request.url).pathname.split("/").pop();
    if (!server.upgrade(request, { data: { channel } })) return new Response("a WebSocket endpoint", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    maxPayloadLength: 65536,
    backpressureLimit: 262144,
    closeOnBackpressureLimit: true,
    idleTimeout: 60, // pings before that
    open(socket) {
      const { channel } = socket.data;
      socket.subscribe(channel);
      if (!subscribed.has(channel)) {
        subscribed.add(channel);
        redis.subscribe(channel, (message) => server.publish(channel, message));
      }
    },
    message() {},
  },
});
