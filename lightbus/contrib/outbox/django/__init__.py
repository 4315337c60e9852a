"""Outbox and inbox in the database of a Django project; add `lightbus.contrib.outbox.django` to INSTALLED_APPS.

outbox = Outbox(bus)

with transaction.atomic():
    order.save()
    outbox.fire(Orders.placed(id=order.id))      # published if and only if the transaction commits

@bus.on(Orders.placed)
def write_invoice(event):
    with transaction.atomic():
        if outbox.is_new():                      # False when a duplicate of a handled message arrives
            Invoice.objects.create(order=event.id)
"""

from .outbox import Outbox

__all__ = ["Outbox"]
