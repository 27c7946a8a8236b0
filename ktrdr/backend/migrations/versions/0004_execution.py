"""Where operations run and why, their idempotency keys, and what is configured at run time."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the table; what is there was not decided."""
    for column in (
        sa.Column("mode", sa.String(length=16), nullable=True),
        sa.Column("place", sa.String(length=16), nullable=True),
        sa.Column("place_reason", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("wish_sha256", sa.String(length=64), nullable=True),
    ):
        op.add_column("operations", column)
    op.create_index(op.f("ix_operations_idempotency_key"), "operations", ["idempotency_key"], unique=True)
    op.create_table(
        "configuration",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_configuration")),
    )


def downgrade() -> None:
    """Forget all of it."""
    op.drop_table("configuration")
    op.drop_index(op.f("ix_operations_idempotency_key"), table_name="operations")
    for column in ("wish_sha256", "idempotency_key", "place_reason", "place", "mode"):
        op.drop_column("operations", column)
