"""What the shop does in the background."""

from __future__ import annotations

from email.message import EmailMessage
from typing import Any

import journal
from celery import shared_task
from celery import shared_task as task

from . import images


@task(bind=True)
def resize_image(self: Any, photo: int, width: int) -> str:
    """Make the thumbnail of a photo; returns its path."""
    path = journal.FOLDER / "thumbnails" / f"{photo}-{width}.png"
    images.write_png(path, images.resized(images.photo(photo), width))
    journal.note_run(self)
    return str(path)


@shared_task(bind=True)
def mail_receipt(self: Any, order: int, email: str) -> str:
    """Put a receipt into the outbox; returns its path."""
    message = EmailMessage()
    message["To"], message["Subject"] = email, f"Your order {order}"
    message.set_content(f"Thank you for order {order}.\n")
    path = journal.FOLDER / "outbox" / f"{order}.eml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(message))
    journal.note_run(self)
    return str(path)
