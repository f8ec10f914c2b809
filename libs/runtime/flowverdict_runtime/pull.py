"""A pull subscription to a durable consumer."""

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo

__all__ = ["Pull"]

_MOST_REQUESTS = 500


class Pull:
    """Fetches the messages of a durable consumer that exists.

    Subscribes anew after some hundred requests: where the streams are in another account, a NATS
    server keeps something of each request for as long as the subscription lasts that its messages
    go to (nats-server, server/accounts.go: `addRespServiceImport` with the type Streamed).
    """

    def __init__(
        self,
        jetstream: JetStreamContext,
        stream: str,
        durable: str,
        subscription: JetStreamContext.PullSubscription,
    ) -> None:
        self._jetstream = jetstream
        self._stream = stream
        self._durable = durable
        self._subscription = subscription
        self._requests = 0

    async def fetch(self, batch: int, wait_seconds: float) -> list[Msg]:
        """Up to `batch` messages.

        Raises:
            TimeoutError: if there is none for `wait_seconds`.
            NatsError: if JetStream does not answer or the consumer is gone.
        """
        if self._requests >= _MOST_REQUESTS:
            before, self._requests = self._subscription, 0
            self._subscription = await self._jetstream.pull_subscribe_bind(
                durable=self._durable, stream=self._stream
            )
            await before.unsubscribe()
        self._requests += 1
        return await self._subscription.fetch(batch, timeout=wait_seconds)

    async def consumer_info(self) -> ConsumerInfo:
        """What NATS says of the consumer.

        Raises:
            NatsError: if JetStream does not answer or the consumer is gone.
        """
        return await self._subscription.consumer_info()

    async def unsubscribe(self) -> None:
        """Receive no more.

        Raises:
            NatsError: if the connection is closed.
        """
        await self._subscription.unsubscribe()
